package waltctl

import (
	"io"

	"github.com/spf13/cobra"
)

// bashWords stands in for a function of the package bash-completion, where that is
// missing: it splits the line at spaces only.
const bashWords = `
declare -F _get_comp_words_by_ref >/dev/null || _get_comp_words_by_ref() {
    local line="${COMP_LINE:0:COMP_POINT}"
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cword=$((${#words[@]} - 1))
    cur="${words[cword]}"
    prev="${words[cword - 1]}"
}
`

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Short: "Print what makes a shell complete the arguments of waltctl",
		Long: `completion prints a script for a shell to read, as
  eval "$(waltctl completion bash)"
  waltctl completion zsh > "${fpath[1]}/_waltctl"
  waltctl completion fish > ~/.config/fish/completions/waltctl.fish
The shell of the appliance has it already.`,
		ValidArgs: []cobra.Completion{"bash", "zsh", "fish"}, Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			if _, err := io.WriteString(out, bashWords); err != nil {
				return err
			}
			return root.GenBashCompletionV2(out, true)
		},
	}
}
