// Package hcl is the one configuration language of the project: the schemas of
// the appliance description (what the image contains), of the units (what the
// supervisor runs) and of the site file (how one platform is configured), their
// decoding and their diagnostics. It also reads upstream's server.conf.
//
// Syntax: HashiCorp HCL native syntax (hclsyntax), without functions and with
// the variables that a caller passes. Refused: files over [MaxFileSize], deep nesting,
// unknown blocks or attributes, values of the wrong type, and whatever the
// Validate methods of the schemas refuse. Every refusal is a diagnostic with
// file, line, source text and, where a name is close to a known one, a
// "did you mean".
//
// This package knows no other package of the project.
package hcl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/zclconf/go-cty/cty"
)

// MaxFileSize bounds what is read from any configuration file, in bytes.
const MaxFileSize = 1 << 20

// Bounds of what is told of one file: a person mends a few mistakes at a time.
const (
	maxDiagnostics = 10
	maxErrorText   = 32 << 10
)

// Error is a refused configuration. Its text is the human form: one block per
// diagnostic with place, source line and caret.
type Error struct {
	Diagnostics hcl2.Diagnostics
	text        string
}

func (e *Error) Error() string { return e.text }

// document is one configuration file being decoded; it keeps the sources that
// diagnostics quote.
type document struct {
	parser *hclparse.Parser
	body   hcl2.Body
	diags  hcl2.Diagnostics
}

func parse(src []byte, name string) (*document, error) {
	d := &document{parser: hclparse.NewParser()}
	if len(src) > MaxFileSize {
		return nil, fmt.Errorf("cannot read %s: larger than %d bytes", name, MaxFileSize)
	}
	if err := checkBounds(src, name); err != nil {
		return nil, err
	}
	file, diags := d.parser.ParseHCL(src, name)
	d.diags = diags
	if diags.HasErrors() {
		return nil, d.err()
	}
	d.body = file.Body
	return d, nil
}

func (d *document) decode(into any, variables map[string]string) error {
	ctx := &hcl2.EvalContext{Variables: map[string]cty.Value{}}
	for name, value := range variables {
		ctx.Variables[name] = cty.StringVal(value)
	}
	d.diags = append(d.diags, gohcl.DecodeBody(d.body, ctx, into)...)
	return d.err()
}

// refuse records a refusal of a well-formed document, at a place of it.
func (d *document) refuse(at *hcl2.Range, summary, format string, args ...any) {
	d.diags = append(d.diags, &hcl2.Diagnostic{
		Severity: hcl2.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: at,
	})
}

// err returns the errors gathered so far as an [*Error], or nil.
func (d *document) err() error {
	if !d.diags.HasErrors() {
		return nil
	}
	var text bytes.Buffer
	writer := hcl2.NewDiagnosticTextWriter(&text, d.parser.Files(), 100, false)
	shown := d.diags[:min(len(d.diags), maxDiagnostics)]
	if err := writer.WriteDiagnostics(shown); err != nil {
		return errors.Join(d.diags, err)
	}
	if more := len(d.diags) - len(shown); more > 0 {
		fmt.Fprintf(&text, "%d more errors are not shown.\n", more)
	}
	told := bytes.TrimSpace(text.Bytes())
	if len(told) > maxErrorText { // it quotes lines
		told = append(bytes.ToValidUTF8(told[:maxErrorText], nil), "…"...)
	}
	return &Error{Diagnostics: d.diags, text: string(told)}
}

// readFile reads a whole configuration file, refusing one over MaxFileSize.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration: %w", err)
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration: %w", err)
	}
	return src, nil
}
