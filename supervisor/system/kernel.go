package system

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/waltos/waltos/services/atomicfile"
	"github.com/waltos/waltos/supervisor/sysctl"
)

// Settings of the kernel: of the image, which the builder writes, and of the site.
const (
	imageSysctl  = "/usr/lib/sysctl.d/walt.conf"
	imageModules = "/usr/lib/modules-load.d/walt.conf"
	siteModprobe = "/run/modprobe.d/walt.conf"
)

// setKernel puts what the image and the site say of the kernel in effect, as far as it is
// known by now: some values appear with their modules or devices.
func (s *system) setKernel() error {
	var failures []error
	if err := os.MkdirAll(filepath.Dir(siteModprobe), 0o755); err != nil {
		failures = append(failures, fmt.Errorf("cannot set modules: %w", err))
	} else {
		failures = append(failures, atomicfile.Write(siteModprobe, s.site.Site.Kernel.ModprobeConf(), 0o644))
	}
	if err := s.applySysctl(); !errors.Is(err, sysctl.ErrUnknown) {
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// applySysctl sets the values of the site over those of the image.
func (s *system) applySysctl() error {
	values, err := sysctl.Read(imageSysctl)
	all := map[string]string{}
	for name, value := range values {
		all[name] = value
	}
	s.mu.Lock()
	for name, value := range s.site.Site.Kernel.Sysctl {
		all[name] = value
	}
	s.mu.Unlock()
	return errors.Join(err, sysctl.Apply(sysctl.Mount, all))
}

// completeKernel is for the time when the drivers are loaded: it loads what no device asks
// for, and says what could not be set.
func (s *system) completeKernel() {
	text, err := readBounded(imageModules)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.console.Say("cannot read the modules to load: %v", err)
	}
	modules := strings.Fields(string(text))
	s.mu.Lock()
	modules = append(modules, s.site.Site.Kernel.Loaded()...)
	s.mu.Unlock()
	if len(modules) > 0 {
		s.runDrivers(modules)
	}
	if err := s.applySysctl(); err != nil {
		s.console.Say("%v", err)
	}
}
