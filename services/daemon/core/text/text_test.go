package text

import "testing"

func TestSentence(t *testing.T) {
	tests := []struct {
		template string
		nodes    []string
		want     string
	}{
		{"%s: rebooted OK.", []string{"vn1"}, "Node vn1: rebooted ok."},
		{"%s: rebooted OK.", []string{"b", "a"}, "Nodes a and b: rebooted ok."},
		{"%s: rebooted OK.", []string{"rpi3B"}, "Node rpi3B: rebooted ok."},
		{"%s: rebooted OK.", []string{"a", "b", "c", "d", "e"}, "Nodes a, b, c, d and e: rebooted ok."},
		{"%s: rebooted OK.", []string{"a", "b", "c", "d", "e", "f"}, "6 nodes: rebooted ok."},
		{"%s: rebooted OK.", nil, "No nodes: rebooted ok."},
		{"Error: %s is(are) not yours. See ...", []string{"a"}, "Error: node a is not yours. see ..."},
		{"%s is(are) not a() node(nodes)", []string{"a", "b"}, "Nodes a and b are not  nodes"},
		{"%s is(are) not a() node(nodes)", []string{"a"}, "Node a is not a node"},
		{"%s: failed PoE-reboot (unknown LLDP network position)", []string{"rpi3"},
			"Node rpi3: failed poe-reboot (unknown lldp network position)"},
		{"%s will now boot its(their) default image (other users will see it(they) is(are) 'free').", []string{"n"},
			"Node n will now boot its default image (other users will see it is 'free')."},
		{"%s will now boot its(their) default image (other users will see it(they) is(are) 'free').", []string{"n", "m"},
			"Nodes m and n will now boot their default image (other users will see they are 'free')."},
	}
	for _, test := range tests {
		if got := Sentence(test.template, test.nodes); got != test.want {
			t.Errorf("Sentence(%q, %q) = %q, want %q", test.template, test.nodes, got, test.want)
		}
	}
	registries := Noun{"no registries", "registry", "registries"}
	if got, want := About("Failed to download X from %s.", []string{"'hub'", "'a'"}, registries, "or"),
		"Failed to download x from registries 'a' or 'hub'."; got != want {
		t.Errorf("About = %q, want %q", got, want)
	}
}

// TestCN36SentencesKeepTheirQuirks: whole sentences in lower case, blanks in negations,
// and misspellings, as users know them.
func TestCN36SentencesKeepTheirQuirks(t *testing.T) {
	for want, got := range map[string]string{
		"Failed: devices B and a are not  switches, so 'x' setting cannot be applied.":                 About("Failed: %s is(are) not a() switch(switches), so 'X' setting cannot be applied.", []string{"B", "a"}, Devices, "and"),
		"Node rpi3B: failed poe-reboot (snmp issue)":                                                   Sentence("%s: failed PoE-reboot (SNMP issue)", []string{"rpi3B"}),
		"Sorry, IP address of A in unknown.":                                                           UnknownIP("A").Error(),
		"Connot find any images belonging to a user with name 'A'.\nMake sure you typed it correctly.": NoImagesOf("A").Error(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestCN19TitlesAreCut: to the longest cell of the whole table.
func TestCN19TitlesAreCut(t *testing.T) {
	cell := "walt:bob/image-123" // 18 characters
	got := Table([]string{"clonable_image_link", "x"}, [][]any{{cell, nil}})
	if want := "clonable-image-lin  x\n------------------  -\n" + cell + "   "; got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	got = Table([]string{"booted"}, [][]any{{nil}}) // None counts four
	if want := "boot\n----\n    "; got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestParagraph(t *testing.T) {
	if got, want := Paragraph("T:", "c", ""), "\n\x1b[1mT:\n\x1b[0m\nc\n\n"; got != want {
		t.Errorf("Paragraph = %q, want %q", got, want)
	}
	if got, want := Paragraph("T:", "c", "f"), "\n\x1b[1mT:\n\x1b[0m\nc\n\nf\n\n"; got != want {
		t.Errorf("Paragraph = %q, want %q", got, want)
	}
}

func TestTable(t *testing.T) {
	got := Table([]string{"name", "type", "model", "image", "ip", "netsetup", "booted"}, [][]any{
		{"rpi3", "physical", "rpi-b", "rpi:v2", "192.168.152.14", "LAN", "NO"},
		{"vn1", "virtual", "pc-x86-64", "myimg", "192.168.152.10", "NAT", "yes"},
	})
	want := "" +
		"name  type      model      image   ip              netsetup  booted\n" +
		"----  --------  ---------  ------  --------------  --------  ------\n" +
		"rpi3  physical  rpi-b      rpi:v2  192.168.152.14  LAN       NO    \n" +
		"vn1   virtual   pc-x86-64  myimg   192.168.152.10  NAT       yes   "
	if got != want {
		t.Errorf("Table =\n%s\nwant\n%s", got, want)
	}
	if got := Table([]string{"a"}, nil); got != "" {
		t.Errorf("Table without rows = %q", got)
	}
	got = Table([]string{"clonable_image_link", "compatibility:compact", "in_use"}, [][]any{{"walt:abc/abcdefghij", nil, true}})
	want = "clonable-image-link  compatibility  in-use\n-------------------  -------------  ------\nwalt:abc/abcdefghij                 True  "
	if got != want {
		t.Errorf("Table =\n%q\nwant\n%q", got, want)
	}
	// CN-19: titles are cut to the longest cell, and an absent value counts four.
	if got, want := Table([]string{"netsetup"}, [][]any{{nil}}), "nets\n----\n    "; got != want {
		t.Errorf("Table = %q, want %q", got, want)
	}
}

func TestList(t *testing.T) {
	got := List([]string{"Image_name", "x"}, [][]any{{"a", nil}})
	want := "Image name  x\n----------  -\na            "
	if got != want {
		t.Errorf("List = %q, want %q", got, want)
	}
}

func TestCompactModels(t *testing.T) {
	tests := []struct {
		models []string
		want   string
	}{
		{[]string{"pc-x86-64"}, "pc-x86-64"},
		{[]string{"rpi-b", "rpi-2-b"}, "rpi-[b|2-b]"},
		{[]string{"rpi-b", "rpi-b-plus"}, "rpi-b[-plus]"},
		{[]string{"rpi-b", "rpi-b-plus", "rpi-2-b"}, "rpi-[b[-plus]|2-b]"},
		{[]string{"pc-x86-64", "pc-x86-32"}, "pc-x86-[64|32]"},
		{[]string{"rpi-b", "rpi-2-b", "rpi-3-b", "qemu-arm", "pc-x86-64", "pc-x86-32"},
			"rpi-[b|2-b|3-b],qemu-arm,pc-x86-[64|32]"},
		{[]string{"rpi-b", "rpi-b-plus", "rpi-2-b", "rpi-3-b", "rpi-3-b-plus", "rpi-4-b", "rpi-400", "rpi-5-b"},
			"rpi-[b[-plus]|2-b|3-b[-plus]|4-b,400|5-b]"},
		{nil, ""},
	}
	for _, test := range tests {
		if got := CompactModels(test.models); got != test.want {
			t.Errorf("CompactModels(%q) = %q, want %q", test.models, got, test.want)
		}
	}
}

func FuzzCompactModels(f *testing.F) {
	f.Add("rpi-b", "rpi-b-plus", "aa")
	f.Fuzz(func(_ *testing.T, a, b, c string) {
		if len(a)+len(b)+len(c) < 200 {
			CompactModels([]string{a, b, c})
		}
	})
}
