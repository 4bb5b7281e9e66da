package compose

import (
	"bytes"
	"slices"

	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/sbom"
)

// materials returns the bill of materials: the packages of the root, of the kernel and
// of the node images, the wheels, and the modules of our programs.
func (b *builder) materials() ([]byte, error) {
	i := sbom.Image{
		Name: b.manifest.Name, Version: b.manifest.Version, Time: b.time,
		ID: gpt.DerivedGUID(b.seed("sbom") + b.manifest.Build).String(),
	}
	sets := map[string]string{lock.Root: "root", lock.Boot: "kernel"}
	add := func(l *lock.Lock, sets map[string]string) {
		for _, p := range l.Packages {
			for _, set := range p.Sets {
				if sets[set] == "" {
					continue // a tool of the build
				}
				i.Components = append(i.Components, sbom.Component{
					Kind: sbom.Debian, Name: p.Name, Version: p.Version, Architecture: p.Architecture, Source: p.Source,
					SHA256: p.SHA256, Within: sets[set],
				})
			}
		}
	}
	if b.Inputs.Foreign() {
		add(b.Inputs.Lock, sets)
		sets = map[string]string{lock.Boot: "kernel of nodes"}
	}
	for _, image := range b.Inputs.Native.Appliance.Images {
		sets[lock.ImageSet(image.Name)] = "node image " + image.Name
	}
	add(b.Inputs.Native.Lock, sets)
	shipped, err := b.Inputs.Shipped()
	if err != nil {
		return nil, err
	}
	for _, w := range shipped {
		i.Components = append(i.Components, sbom.Component{
			Kind: sbom.Python, Name: w.Name, Version: w.Version, SHA256: w.SHA256, Within: "wheels",
		})
	}
	for name, program := range map[string][]byte{
		"supervisor": b.programs.supervisor, "services": b.programs.services, "walt-server-setup": b.programs.installer, "walt-node": b.programs.node,
	} {
		modules, err := sbom.Modules(name, program)
		if err != nil {
			return nil, err
		}
		i.Components = slices.Concat(i.Components, modules)
	}
	var out bytes.Buffer
	err = sbom.Write(&out, i)
	return out.Bytes(), err
}
