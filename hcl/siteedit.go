package hcl

import (
	"fmt"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// SetNetwork changes the block of a network in the text of a site file, or adds it; all
// else, comments too, stays as it is. An empty attribute is removed; a network without
// interface and address goes as a whole. The result is a valid site file.
func SetNetwork(src []byte, name string, n Network) ([]byte, error) {
	if err := checkBounds(src, name); err != nil {
		return nil, err
	}
	file, diagnostics := hclwrite.ParseConfig(src, name, hcl2.InitialPos)
	if diagnostics.HasErrors() {
		return nil, fmt.Errorf("cannot change the configuration: %w", diagnostics)
	}
	block := file.Body().FirstMatchingBlock("network", []string{n.Name})
	switch {
	case n.Interface == "" && n.IP == "":
		if block != nil {
			file.Body().RemoveBlock(block)
		}
	default:
		if block == nil {
			file.Body().AppendNewline()
			block = file.Body().AppendNewBlock("network", []string{n.Name})
		}
		for _, attribute := range []struct{ name, value string }{{"interface", n.Interface}, {"ip", n.IP}, {"gateway", n.Gateway}} {
			if attribute.value == "" {
				block.Body().RemoveAttribute(attribute.name)
			} else {
				block.Body().SetAttributeValue(attribute.name, cty.StringVal(attribute.value))
			}
		}
	}
	text := hclwrite.Format(file.Bytes())
	if _, err := ParseSite(text, name); err != nil {
		return nil, err
	}
	return text, nil
}
