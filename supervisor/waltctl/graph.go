package waltctl

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/graph"
	"github.com/waltos/waltos/supervisor/unit"
)

func (t *Tool) graphCommand() *cobra.Command {
	var dot, svg bool
	cmd := &cobra.Command{
		Use: "graph [UNIT]", Short: "Show what units depend on", Args: cobra.MaximumNArgs(1), ValidArgsFunction: t.completeUnits,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (dot || svg || t.asJSON) {
				return errors.New("a drawing is of all units; leave out the unit")
			}
			nodes, err := t.Client.Graph(cmd.Context())
			if err != nil {
				return err
			}
			if t.asJSON {
				return t.print(nodes)
			}
			status, err := t.Client.Status(cmd.Context())
			if err != nil {
				return err
			}
			g := graph.New(nodes, status.Units)
			switch {
			case dot:
				return g.DOT(t.Out)
			case svg:
				return g.SVG(t.Out)
			}
			from := ""
			if len(args) == 1 {
				from = args[0]
			}
			return g.Tree(t.Out, from, func(s unit.State) string { return paint(string(s), stateColor(s), t.Color) })
		},
	}
	cmd.Flags().BoolVar(&dot, "dot", false, "in the language of Graphviz")
	cmd.Flags().BoolVar(&svg, "svg", false, "as a drawing")
	cmd.MarkFlagsMutuallyExclusive("dot", "svg")
	return cmd
}
