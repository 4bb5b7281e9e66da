// Package inputs opens what every builder and every lab needs: the description of the
// appliance, its lock, and the cache filled from the mirror.
package inputs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/toolbox"
	"github.com/waltos/waltos/image/wheels"
)

// Options say where things are.
type Options struct {
	Appliance string // path of appliance.hcl
	// Architecture of the appliance, as Debian calls it; by default that of the description.
	Architecture string
	Cache        string // folder of the cache, by default as fetch.OpenCache says
	Mirror       string // by default as fetch.FindMirror says
	// Override lets locked packages that are gone be replaced by newer ones, loudly.
	Override bool
	Progress *fetch.Progress

	// Resolver and Snapshot replace the archive's keys, clock and snapshots: for tests.
	Resolver lock.Resolver
	Snapshot string
}

// Inputs is the outcome of Open.
type Inputs struct {
	Appliance *hcl.Appliance
	Lock      *lock.Lock // the lock, or its override; final after Ensure
	Fetcher   *fetch.Fetcher
	// Native are the inputs of the architecture that tools and node images have: these
	// themselves, unless the appliance is of another one.
	Native *Inputs

	options  Options
	file     string // of the lock
	relock   string // command that makes it
	override string // file of the lock override
}

// Foreign tells whether the appliance is of another architecture than its tools.
func (in *Inputs) Foreign() bool { return in.Native != in }

// Locks are all that decide what is built.
func (in *Inputs) Locks() []*lock.Lock {
	if in.Foreign() {
		return []*lock.Lock{in.Lock, in.Native.Lock}
	}
	return []*lock.Lock{in.Lock}
}

// Released says whether all locks are those that were published.
func (in *Inputs) Released() bool { return in.Lock.Released() && in.Native.Lock.Released() }

// Open reads the description and the lock and finds cache and mirror. It does not touch
// the network.
func Open(o Options) (*Inputs, error) {
	in, err := open(o)
	if err != nil || o.Architecture == "" {
		return in, err
	}
	o.Architecture = ""
	native, err := open(o)
	if err != nil || native.file == in.file {
		return native, err
	}
	in.Native = native
	return in, nil
}

func open(o Options) (*Inputs, error) {
	in, err := start(o)
	if err != nil {
		return nil, err
	}
	if in.Lock, err = lock.Load(in.file); err != nil {
		return nil, err
	}
	if err := in.Lock.Check(in.Appliance); err != nil {
		return nil, fmt.Errorf("%w; run `%s`", err, in.relock)
	}
	in.override = in.Fetcher.Cache.Path("override", in.Lock.Digest()+".lock")
	if o.Override {
		over, err := lock.Load(in.override)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			in.Lock = over
			in.announce()
		}
	}
	return in, nil
}

func start(o Options) (*Inputs, error) {
	a, err := hcl.LoadAppliance(o.Appliance, o.Architecture)
	if err != nil {
		return nil, err
	}
	native, err := hcl.LoadAppliance(o.Appliance, "")
	if err != nil {
		return nil, err
	}
	name, relock := "appliance.lock", "go run ./image lock"
	if a.Debian.Architecture != native.Debian.Architecture {
		name = "appliance-" + a.Debian.Architecture + ".lock"
		relock += " --architecture " + a.Debian.Architecture
	}
	cache, err := fetch.OpenCache(o.Cache)
	if err != nil {
		return nil, err
	}
	f := &fetch.Fetcher{Cache: cache, Mirror: fetch.FindMirror(o.Mirror, "/etc/apt"), Snapshot: o.Snapshot, Progress: o.Progress}
	o.Resolver.Fetcher = f
	in := &Inputs{Appliance: a, Fetcher: f, options: o, file: filepath.Join(filepath.Dir(o.Appliance), name), relock: relock}
	in.Native = in
	return in, nil
}

// Ensure brings the packages of some sets into the cache, decoded; of every set when
// none is named. Where packages are gone and an override is allowed, in.Lock becomes the
// override: ensure all sets that belong together in one call, before using any.
func (in *Inputs) Ensure(ctx context.Context, sets ...string) error {
	// What replaces a package may be gone too, when an archive changes at that moment.
	for round := 1; ; round++ {
		files, err := in.Lock.Files(sets...)
		if err != nil {
			return err
		}
		err = in.Fetcher.Files(ctx, files)
		gone := (*fetch.Gone)(nil)
		if err == nil {
			return in.Fetcher.Decode(ctx, files)
		}
		if corrupt := (*fetch.Corrupt)(nil); errors.As(err, &corrupt) {
			return fmt.Errorf("%w; the mirror is damaged: name another with --mirror or WALT_MIRROR", err)
		}
		if !errors.As(err, &gone) || round == 3 {
			return err
		}
		if !in.options.Override {
			return fmt.Errorf("%w; run `%s --update` to lock newer versions", err, in.relock)
		}
		if in.Lock, err = in.options.Resolver.Override(ctx, in.Appliance, in.Lock, gone); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(in.override), 0o755); err != nil {
			return err
		}
		if err := in.Lock.Save(in.override); err != nil {
			return err
		}
		in.announce()
	}
}

// announce says loudly that this is not what was released.
func (in *Inputs) announce() {
	p := in.options.Progress
	p.Say("WARNING: this is NOT THE RELEASED IMAGE: packages of the lock are gone from cache, mirror and snapshot archive")
	for _, r := range in.Lock.Replaced {
		if r.Now == "" {
			p.Say("  gone: %s; nothing needs it any more", r.Gone)
		} else {
			p.Say("  gone: %s; used instead: %s", r.Gone, r.Now)
		}
	}
	p.Say("  kept in %s; `%s --update` locks newer versions", in.override, in.relock)
}

// Toolbox opens a set of packages to run its programs, which are of this machine's
// architecture.
func (in *Inputs) Toolbox(ctx context.Context, set string) (*toolbox.Toolbox, error) {
	return toolbox.Open(ctx, in.Native.Lock, in.Fetcher, set)
}

// Python is the tool set that runs pip and wheels.
var Python = lock.ToolSet("python")

// Client installs a wheels block and returns what runs its programs.
func (in *Inputs) Client(ctx context.Context, name string) (*wheels.Site, error) {
	python, err := in.Toolbox(ctx, Python)
	if err != nil {
		return nil, err
	}
	return wheels.Install(ctx, python, in.Native.Lock, in.Fetcher, name)
}

// Shipped returns the wheels that the appliance holds.
func (in *Inputs) Shipped() ([]lock.Wheel, error) {
	var shipped []lock.Wheel
	for _, block := range in.Native.Appliance.Wheels {
		for _, name := range block.Shipped {
			i := slices.IndexFunc(in.Native.Lock.Wheels, func(w lock.Wheel) bool { return w.Set == block.Name && w.Name == name })
			if i < 0 {
				return nil, fmt.Errorf("cannot ship wheel %q: wheels %q of the lock has none of that name", name, block.Name)
			}
			shipped = append(shipped, in.Native.Lock.Wheels[i])
		}
	}
	return shipped, nil
}

// FetchWheels brings wheels into the cache. The tool set Python must have been ensured
// if some are missing.
func (in *Inputs) FetchWheels(ctx context.Context, set []lock.Wheel) error {
	if len(wheels.Missing(in.Fetcher, set)) == 0 {
		return nil // no interpreter is needed
	}
	python, err := in.Toolbox(ctx, Python)
	if err != nil {
		return err
	}
	return wheels.Fetch(ctx, python, in.Fetcher, set)
}

// Relock makes the lock anew when it is missing, does not fit the description, or when
// update is set; and prints to out what changed.
func Relock(ctx context.Context, o Options, update bool, out io.Writer) error {
	in, err := start(o)
	if err != nil {
		return err
	}
	old, err := lock.Load(in.file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		old = &lock.Lock{}
	case err != nil:
		return err
	case !update && old.Check(in.Appliance) == nil:
		fmt.Fprintf(out, "%s fits %s; `%s --update` looks for newer packages\n", in.file, o.Appliance, in.relock)
		return nil
	}
	l, err := in.options.Resolver.Resolve(ctx, in.Appliance)
	if err != nil {
		return err
	}
	if err := newer(old, l); err != nil {
		return err
	}
	for _, w := range in.Appliance.Wheels {
		python, err := toolbox.Open(ctx, l, in.Fetcher, Python)
		if err != nil {
			return err
		}
		locked, err := wheels.Resolve(ctx, python, in.Fetcher, w)
		if err != nil {
			return err
		}
		l.Wheels = append(l.Wheels, locked...)
	}
	if bytes.Equal(l.Encode(), old.Encode()) {
		fmt.Fprintln(out, "nothing changed")
		return nil
	}
	if changes := l.Changes(old); len(changes) > 0 {
		fmt.Fprintln(out, strings.Join(changes, "\n"))
	}
	fmt.Fprintf(out, "%s: %d packages, %d wheels\n", in.file, len(l.Packages), len(l.Wheels))
	return l.Save(in.file)
}

// newer refuses a suite that is older than the one locked: a mirror that stands still, or
// one that hides updates.
func newer(old, now *lock.Lock) error {
	for _, was := range old.Snapshots {
		for _, is := range now.Snapshots {
			if was.Suite == is.Suite && is.Date.Before(was.Date) {
				return fmt.Errorf("cannot lock: suite %s of the mirror is of %s, older than the locked %s",
					is.Suite, is.Date.Format("2006-01-02 15:04"), was.Date.Format("2006-01-02 15:04"))
			}
		}
	}
	return nil
}
