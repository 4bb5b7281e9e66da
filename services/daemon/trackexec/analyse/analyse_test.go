package analyse

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/services/daemon/trackexec/tracetest"
)

// analyse runs the command on a trace.
func analyse(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if status := run(t.Context(), args, &out, &errs); status != 0 || errs.Len() > 0 {
		t.Fatalf("%q: status %d, %s", args, status, &errs)
	}
	return out.String()
}

// rows returns the cells of a table, without IDs and its title.
func rows(text string) (list []string) {
	table, _, _ := strings.Cut(text, "\n\n")
	for i, line := range strings.Split(strings.TrimSpace(table), "\n") {
		if i > 0 {
			list = append(list, strings.Join(strings.Fields(line)[1:], " "))
		}
	}
	return list
}

func TestTable(t *testing.T) {
	folder := tracetest.Run(t, 20)
	text := analyse(t, folder)
	want := []string{
		"3000.000 3000.000 3000.000 1 0 server-hub request wait_for_nodes",
		"3000.000 3000.000 3000.000 1 0 server-main request wait_for_nodes",
		"380.000 20.000 20.000 19 0 server-hub request show_nodes",
		"380.000 20.000 20.000 19 0 server-main request show_nodes",
		"200.000 10.000 10.000 20 0 server-main task loadAll",
		"80.000 2.000 2.000 40 2 server-main sql SELECT mac FROM devices",
	}
	got := rows(text)
	if len(got) != len(want) {
		t.Fatalf("got\n%s", text)
	}
	for i := range got { // equal ones are in the order of their IDs
		if got[i] != want[i] && got[i] != want[i^1] {
			t.Errorf("row %d: %s", i, got[i])
		}
	}
	if !strings.Contains(text, "\n6 operations in 19.005s\n") {
		t.Errorf("got\n%s", text)
	}
	if got := rows(analyse(t, "--sort-column", "frequency", "--num-items", "1", folder)); len(got) != 1 || got[0] != want[5] {
		t.Errorf("most frequent: %q", got)
	}
	if got := rows(analyse(t, "--sort-column=average-runtime", "--num-items=3", filepath.Join(folder, "server-main"))); len(got) != 3 || got[0] != want[1] || got[2] != want[4] {
		t.Errorf("greatest average: %q", got)
	}
}

func TestJSONAndOccurrences(t *testing.T) {
	folder := tracetest.Run(t, 20)
	var list []jsonOperation
	if err := json.Unmarshal([]byte(analyse(t, "--json", "--sort-column", "frequency", folder)), &list); err != nil {
		t.Fatal(err)
	}
	sql := list[0]
	if sql.Count != 40 || sql.Failed != 2 || sql.Kind != "sql" || sql.Cumulated != 0.08 {
		t.Errorf("got %+v", sql)
	}
	text := analyse(t, "--file-id", sql.ID, folder)
	if lines := strings.Split(strings.TrimSpace(text), "\n"); len(lines) != 3+usualItems || lines[0] != "server-main: sql SELECT mac FROM devices" {
		t.Errorf("got\n%s", text)
	}
	var occurrences []jsonOccurrence
	if err := json.Unmarshal([]byte(analyse(t, "--json", "--file-id", list[len(list)-1].ID, folder)), &occurrences); err != nil {
		t.Fatal(err)
	}
	if len(occurrences) != 1 || occurrences[0].Duration != 3 || *occurrences[0].Number != 7 || occurrences[0].Began.UnixNano() < tracetest.Begin {
		t.Errorf("got %+v", occurrences)
	}
}

func TestExitStatus(t *testing.T) {
	folder := tracetest.Run(t, 2)
	none := filepath.Join(folder, "none")
	file := filepath.Join(folder, "server-hub", "pid")
	for _, test := range []struct {
		args   []string
		status int
		err    string
	}{
		{[]string{"--help"}, 0, ""},
		{[]string{none}, 1, "No such directory: " + none + "\n"},
		{[]string{file}, 1, "Not a directory: " + file + "\n"},
		{[]string{t.TempDir()}, 1, "The specified directory must contain a \"log_index\" file.\n"},
		{[]string{"--file-id", "0", folder}, 1, `no operation of this trace has ID "0"`},
		{[]string{}, 2, "accepts 1 arg"},
		{[]string{"--num-items", "0", folder}, 2, "--num-items"},
		{[]string{"--num-items", "x", folder}, 2, "--num-items"},
		{[]string{"--sort-column", "name", folder}, 2, "cumulated-runtime average-runtime frequency"},
		{[]string{"--file-id", "0", "--num-items", "3", folder}, 2, "excludes"},
		{[]string{"--file-id", "0", "--sort-column", "frequency", folder}, 2, "excludes"},
	} {
		var out, errs bytes.Buffer
		status := run(t.Context(), test.args, &out, &errs)
		if status != test.status || !strings.Contains(errs.String(), test.err) || status == 0 && !strings.Contains(out.String(), "--sort-column") {
			t.Errorf("%q: status %d, %q, %q", test.args, status, &out, &errs)
		}
	}
}
