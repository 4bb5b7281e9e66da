// Package fetch brings the files of a lock into a cache.
//
// A file is known by its SHA-256. It is looked for in the cache, on the mirror, and in
// Debian's public snapshot archive at the time at which the lock was made; the reason is
// that mirrors drop superseded versions within days. Nothing is used whose size and hash
// are not those of the lock. Files that no place has any more are named by Gone.
package fetch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/image/deb"
)

// File is a file of an archive.
type File struct {
	Label    string // for people, as "bash 5.2.37-2"
	Archive  string // Debian or Security
	Path     string // below the root of the archive
	Other    string // path tried when Path is not there, optional
	Size     int64
	SHA256   string
	Snapshot time.Time // when the archive listed it; zero: not in the snapshot archive
}

// Gone names files that neither the cache nor the mirror nor the snapshot archive has.
type Gone struct{ Packages []File }

func (g *Gone) Error() string {
	labels := make([]string, len(g.Packages))
	for i, p := range g.Packages {
		labels[i] = p.Label
	}
	return fmt.Sprintf("cannot find %s: neither in the cache, nor on the mirror, nor in the snapshot archive", strings.Join(labels, ", "))
}

// Corrupt is content that is not what the lock says.
type Corrupt struct {
	File  File
	Place string // address or path
	Size  int64  // found
	Hash  string // found, SHA-256
}

func (c *Corrupt) Error() string {
	return fmt.Sprintf("cannot use %s of %s: expected SHA-256 %s (%d bytes), found %s (%d bytes)",
		c.File.Label, c.Place, c.File.SHA256, c.File.Size, c.Hash, c.Size)
}

// Fetcher downloads into a cache. Fields are set before its first use.
type Fetcher struct {
	Cache    *Cache
	Mirror   Mirror
	Snapshot string // base of the snapshot archive; default is the public one, "none" is none
	Progress *Progress
	Client   *http.Client  // default: one with bounded times
	Tries    int           // of a place that answers badly, default 3
	Pause    time.Duration // between tries, doubled each time, default 1 s
	Stall    time.Duration // without a byte that ends a try, default 30 s

	mu    sync.Mutex
	dead  map[string]error // bases that could not be reached
	usual *http.Client
}

func (f *Fetcher) client() *http.Client {
	if f.Client != nil {
		return f.Client
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.usual == nil {
		f.usual = &http.Client{Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			IdleConnTimeout:       30 * time.Second,
			MaxIdleConnsPerHost:   parallel,
			ForceAttemptHTTP2:     true,
			// Hashes are of the files as they are stored.
			DisableCompression: true,
		}}
	}
	return f.usual
}

// parallel downloads hide the round trips to a mirror without being rude to it.
const parallel = 6

// Files brings all files into the cache. When some are found nowhere, everything else
// is fetched and the error is a *Gone.
func (f *Fetcher) Files(ctx context.Context, files []File) error {
	var missing []File
	var total int64
	seen := map[string]bool{}
	for _, file := range files {
		if !seen[file.SHA256] && !f.has(file) {
			missing = append(missing, file)
			total += file.Size
		}
		seen[file.SHA256] = true
	}
	if len(missing) == 0 {
		return nil
	}
	what := missing[0].Label
	if len(missing) > 1 {
		what = fmt.Sprintf("%d files", len(missing))
	}
	task := f.Progress.Begin(total, "fetch %s", what)

	var mu sync.Mutex
	gone := &Gone{}
	group, groupContext := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, file := range missing {
		group.Go(func() error {
			err := f.file(groupContext, file, task)
			if g := (*Gone)(nil); errors.As(err, &g) {
				mu.Lock()
				defer mu.Unlock()
				gone.Packages = append(gone.Packages, g.Packages...)
				return nil
			}
			return err
		})
	}
	err := group.Wait()
	if err == nil && len(gone.Packages) > 0 {
		slices.SortFunc(gone.Packages, func(a, b File) int { return strings.Compare(a.Label, b.Label) })
		err = gone
	}
	task.End(err)
	return err
}

// Path names the file in the cache, where Files has brought it.
func (f *Fetcher) Path(file File) string { return f.Cache.File(file.SHA256) }

func (f *Fetcher) has(file File) bool {
	info, err := os.Stat(f.Path(file))
	return err == nil && info.Size() == file.Size
}

// file tries place after place.
func (f *Fetcher) file(ctx context.Context, file File, task *Task) error {
	unlock, err := f.Cache.Lock(ctx, "file-"+file.SHA256)
	if err != nil {
		return err
	}
	defer unlock()
	if f.has(file) { // another process was faster
		task.Add(file.Size)
		return nil
	}

	mirror := f.Mirror.base(file.Archive)
	paths := []string{mirror + "/" + file.Path}
	if file.Other != "" {
		paths = append(paths, mirror+"/"+file.Other)
	}
	var failures []error
	absent := true // the mirror has answered, and has it not
	for _, address := range paths {
		err := f.download(ctx, mirror, address, file, task)
		if err == nil {
			return nil
		}
		absent = absent && errors.Is(err, fs.ErrNotExist)
		failures = append(failures, err)
	}
	for _, address := range f.snapshots(file) {
		err := f.download(ctx, f.snapshotBase(), address, file, task)
		if err == nil {
			return nil
		}
		if c := (*Corrupt)(nil); errors.As(err, &c) {
			failures = append(failures, err)
			absent = false
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if absent {
		return &Gone{[]File{file}}
	}
	return errors.Join(failures...)
}

func (f *Fetcher) snapshotBase() string {
	switch f.Snapshot {
	case "":
		return publicSnapshot
	case "none":
		return ""
	default:
		return strings.TrimRight(f.Snapshot, "/")
	}
}

// snapshots lists where the snapshot archive may have a file. It takes its copies some
// hours after the archive has dated its Release file, and answers for a given time with
// the copy before it; so the first to ask for is a little later.
func (f *Fetcher) snapshots(file File) []string {
	base := f.snapshotBase()
	if base == "" || file.Snapshot.IsZero() {
		return nil
	}
	var list []string
	for _, later := range []time.Duration{12 * time.Hour, 48 * time.Hour, 0} {
		stamp := file.Snapshot.UTC().Add(later).Format("20060102T150405Z")
		list = append(list, base+"/"+file.Archive+"/"+stamp+"/"+file.Path)
	}
	return list
}

// download fetches one address into the cache, trying again what may be passing.
func (f *Fetcher) download(ctx context.Context, base, address string, file File, task *Task) error {
	pause := f.Pause
	if pause == 0 {
		pause = time.Second
	}
	tries := f.Tries
	if tries == 0 {
		tries = 3
	}
	for try := 1; ; try++ {
		if err := f.isDead(base); err != nil {
			return err
		}
		err := f.try(ctx, address, file, task)
		corrupt := (*Corrupt)(nil)
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.As(err, &corrupt) || ctx.Err() != nil {
			return err
		}
		if try >= tries {
			// A place that cannot be reached is not asked again for each of many files. The
			// snapshot archive is a last resort: any trouble there counts.
			dial := (*net.OpError)(nil)
			if errors.As(err, &dial) && dial.Op == "dial" || base == f.snapshotBase() {
				f.setDead(base, err)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause << (try - 1)):
		}
	}
}

func (f *Fetcher) isDead(base string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead[base]
}

func (f *Fetcher) setDead(base string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead == nil {
		f.dead = map[string]error{}
	}
	f.dead[base] = err
}

func (f *Fetcher) try(ctx context.Context, address string, file File, task *Task) (err error) {
	body, err := f.open(ctx, address)
	if err != nil {
		return err
	}
	defer body.Close()
	temp, err := f.Cache.Temp()
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()

	hash := sha256.New()
	counted := &counter{r: io.LimitReader(body, file.Size+1), task: task}
	defer func() {
		if err != nil {
			task.Add(-counted.n)
		}
	}()
	if _, err := io.Copy(io.MultiWriter(temp, hash), counted); err != nil {
		return fmt.Errorf("cannot fetch %s: %w", address, err)
	}
	if found := hex.EncodeToString(hash.Sum(nil)); counted.n != file.Size || found != file.SHA256 {
		return &Corrupt{file, address, counted.n, found}
	}
	if err := temp.Chmod(0o644); err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return fmt.Errorf("cannot write cache: %w", err)
	}
	return f.Cache.Keep(temp.Name(), f.Path(file))
}

// Read returns a file of the mirror whose hash is not known beforehand, as InRelease.
func (f *Fetcher) Read(ctx context.Context, archive, path string, limit int64) ([]byte, error) {
	base := f.Mirror.base(archive)
	address := base + "/" + path
	body, err := f.open(ctx, address)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %s: %w", address, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("cannot fetch %s: larger than %d bytes", address, limit)
	}
	return raw, nil
}

// open opens an address or a path. The error is fs.ErrNotExist when the place answers
// that it has no such file.
func (f *Fetcher) open(ctx context.Context, address string) (io.ReadCloser, error) {
	if path, isFile := strings.CutPrefix(address, "file://"); isFile {
		address = path
	}
	if !strings.Contains(address, "://") {
		file, err := os.Open(filepath.FromSlash(address))
		if err != nil {
			return nil, fmt.Errorf("cannot fetch: %w", err)
		}
		return file, nil
	}
	stall := f.Stall
	if stall == 0 {
		stall = 30 * time.Second
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing received for %v", stall)) })
	fail := func(err error) (io.ReadCloser, error) {
		timer.Stop()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, fmt.Errorf("cannot fetch %s: %w", address, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fail(err)
	}
	response, err := f.client().Do(request)
	if err != nil {
		return fail(err)
	}
	switch response.StatusCode {
	case http.StatusOK:
		return &body{response.Body, ctx, cancel, timer, stall}, nil
	case http.StatusNotFound, http.StatusGone:
		response.Body.Close()
		return fail(fs.ErrNotExist)
	default:
		response.Body.Close()
		return fail(errors.New(response.Status))
	}
}

// body ends a download from which nothing comes any more.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(b.stall)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

type counter struct {
	r    io.Reader
	n    int64
	task *Task
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.task.Add(int64(n))
	return n, err
}

// Decode makes the quick copies that Data reads, several packages at a time. Decoding
// xz is what a first build spends its time on.
func (f *Fetcher) Decode(ctx context.Context, files []File) error {
	var missing []File
	var total int64
	seen := map[string]bool{}
	for _, file := range files {
		if _, err := os.Stat(f.copyPath(file)); err != nil && !seen[file.SHA256] {
			missing = append(missing, file)
			total += file.Size
		}
		seen[file.SHA256] = true
	}
	if len(missing) == 0 {
		return nil
	}
	// The largest first, so that no processor is left alone with it in the end.
	slices.SortFunc(missing, func(a, b File) int { return cmp.Compare(b.Size, a.Size) })
	task := f.Progress.Begin(total, "decode %d packages", len(missing))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, file := range missing {
		group.Go(func() error {
			defer task.Add(file.Size)
			return f.decode(ctx, file)
		})
	}
	err := group.Wait()
	task.End(err)
	return err
}

// Data opens the content of a package that Files has fetched.
func (f *Fetcher) Data(ctx context.Context, file File) (*deb.Data, error) {
	if err := f.decode(ctx, file); err != nil {
		return nil, err
	}
	return deb.OpenCopy(f.copyPath(file))
}

func (f *Fetcher) copyPath(file File) string {
	return f.Cache.Path("data", file.SHA256[:2], file.SHA256+".tar.zst")
}

// decode makes the quick copy of one package. A package that was damaged in the cache
// is fetched again, once.
func (f *Fetcher) decode(ctx context.Context, file File) error {
	if _, err := os.Stat(f.copyPath(file)); err == nil {
		return nil
	}
	unlock, err := f.Cache.Lock(ctx, "data-"+file.SHA256)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(f.copyPath(file)); err == nil {
		return nil
	}
	err = f.copyData(ctx, file)
	if corrupt := (*Corrupt)(nil); errors.As(err, &corrupt) {
		f.Progress.Say("%v; fetching it again", err)
		if err := os.Remove(f.Path(file)); err != nil {
			return err
		}
		if err := f.Files(ctx, []File{file}); err != nil {
			return err
		}
		err = f.copyData(ctx, file)
	}
	return err
}

func (f *Fetcher) copyData(ctx context.Context, file File) error {
	in, err := os.Open(f.Path(file))
	if err != nil {
		return fmt.Errorf("cannot decode %s: %w", file.Label, err)
	}
	defer in.Close()
	// The hash first: only then is the content worth decoding.
	hash := sha256.New()
	n, err := io.Copy(hash, in)
	if err != nil {
		return fmt.Errorf("cannot decode %s: %w", file.Label, err)
	}
	if found := hex.EncodeToString(hash.Sum(nil)); found != file.SHA256 {
		return &Corrupt{file, f.Path(file), n, found}
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	p, err := deb.Open(in)
	if err != nil {
		return fmt.Errorf("%s: %w", file.Label, err)
	}
	defer p.Close()
	temp, err := f.Cache.Temp()
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	if err := deb.WriteCopy(ctx, temp, p); err != nil {
		return fmt.Errorf("%s: %w", file.Label, err)
	}
	if err := temp.Close(); err != nil {
		return fmt.Errorf("cannot write cache: %w", err)
	}
	return f.Cache.Keep(temp.Name(), f.copyPath(file))
}
