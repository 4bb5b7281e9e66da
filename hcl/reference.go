package hcl

import _ "embed"

//go:embed UNITS.md
var unitReference string

// UnitReference is the reference page of unit files, in Markdown. It is generated from the
// schema: go test ./hcl -run TestReference -update
func UnitReference() string { return unitReference }
