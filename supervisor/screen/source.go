package screen

import (
	"context"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/waltos/waltos/supervisor/control"
)

// lookTime is how often the view is made anew although nothing told of a change.
const lookTime = 10 * time.Second

// settleTime is how long after a change it is waited for more of them.
const settleTime = 200 * time.Millisecond

// maxFailed bounds how many failed units are looked at.
const maxFailed = 5

// Source makes views.
type Source struct {
	Client  control.Client
	Failure *Failure // of a failed boot; then nobody is asked
}

// Watch sends views from now on: the first at once, others when something has changed. Only
// the newest waits to be received.
func (s *Source) Watch(ctx context.Context) <-chan View {
	views, changed := make(chan View, 1), make(chan struct{}, 1)
	touch := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	if s.Failure == nil {
		go s.watchUnits(ctx, touch)
	}
	go watchNetwork(ctx, touch)
	go func() {
		ticker := time.NewTicker(lookTime)
		defer ticker.Stop()
		for ctx.Err() == nil {
			v := s.View(ctx)
			select {
			case <-views: // nobody has looked at it
			default:
			}
			views <- v
			select {
			case <-ctx.Done():
			case <-ticker.C:
			case <-changed:
				pause(ctx, settleTime)
			}
		}
	}()
	return views
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// watchUnits follows the events of the supervisor, again and again.
func (s *Source) watchUnits(ctx context.Context, touch func()) {
	for ctx.Err() == nil {
		_ = s.Client.Events(ctx, "", true, func(control.Event) error { touch(); return nil })
		pause(ctx, lookTime)
	}
}

// watchNetwork follows what the kernel tells of addresses and routes.
func watchNetwork(ctx context.Context, touch func()) {
	addresses, routes := make(chan netlink.AddrUpdate), make(chan netlink.RouteUpdate)
	if netlink.AddrSubscribe(addresses, ctx.Done()) != nil || netlink.RouteSubscribe(routes, ctx.Done()) != nil {
		return // the ticker must do
	}
	for {
		select {
		case _, ok := <-addresses:
			if !ok {
				return
			}
		case _, ok := <-routes:
			if !ok {
				return
			}
		}
		touch()
	}
}

// View looks at the machine now.
func (s *Source) View(ctx context.Context) View {
	v := View{Addresses: addresses(), Failure: s.Failure}
	if s.Failure != nil {
		return v
	}
	status, err := s.Client.Status(ctx)
	if err != nil {
		v.Trouble = err.Error()
		return v
	}
	v.Status = &status
	for _, u := range status.Units {
		if u.Good() || status.State == "starting" && u.Reason == "" || len(v.Failed) == maxFailed {
			continue
		}
		if d, err := s.Client.Unit(ctx, u.Name); err == nil {
			v.Failed = append(v.Failed, d)
		}
	}
	return v
}

// addresses lists those that others can reach, of interfaces that are up.
func addresses() []Address {
	out := 0
	if routes, err := netlink.RouteList(nil, netlink.FAMILY_V4); err == nil {
		for _, r := range routes {
			if r.Dst == nil || r.Dst.IP.IsUnspecified() {
				out = r.LinkIndex
			}
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	var list []Address
	for _, l := range links {
		all, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			continue
		}
		for _, a := range all {
			if a.IP.IsGlobalUnicast() {
				list = append(list, Address{l.Attrs().Name, a.IPNet.String(), l.Attrs().Index == out})
			}
		}
	}
	return list
}
