package wheels

import (
	"maps"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for file, want := range map[string][2]string{
		"walt_client-10.0-py3-none-any.whl":                    {"walt-client", "10.0"},
		"pyyaml-6.0.3-cp313-cp313-manylinux2014_x86_64.whl":    {"pyyaml", "6.0.3"},
		"Zope.Interface-7.0-1-cp313-cp313-linux_x86_64.whl":    {"zope-interface", "7.0"},
		"walt_client-10.0.tar.gz":                              {},
		"walt_client.whl":                                      {},
		"a-b-c-d-e-f-g.whl":                                    {},
		"python_dateutil-2.9.0.post0-py2.py3-none-any.whl.txt": {},
	} {
		name, version, err := split(file)
		if [2]string{name, version} != want || (err != nil) != (want[0] == "") {
			t.Errorf("%s: got %q, %q, %v", file, name, version, err)
		}
	}
}

func TestEntryPoints(t *testing.T) {
	got := map[string]entry{}
	parseEntryPoints(strings.NewReader(`
# comment
[console_scripts]
walt = walt.client.client:run
pip3=pip._internal:main.run [extra]
evil = os:system('x')
none = module
[gui_scripts]
other = a:b
`), got)
	want := map[string]entry{"walt": {"walt.client.client", "run"}, "pip3": {"pip._internal", "main.run"}}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzEntryPoints(f *testing.F) {
	f.Add("[console_scripts]\nwalt = walt.client.client:run\n")
	f.Fuzz(func(t *testing.T, text string) {
		got := map[string]entry{}
		parseEntryPoints(strings.NewReader(text), got)
		for _, e := range got {
			if strings.ContainsAny(e.module+e.function, "();'\" \n") {
				t.Errorf("%q would be run", e)
			}
		}
	})
}
