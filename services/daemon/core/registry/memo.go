package registry

import "sync"

// maxMemo bounds the texts kept of one view: one per user, if need be.
const maxMemo = 64

// memo keeps texts made of a view, which are the same as long as it lasts.
type memo struct {
	mu    sync.Mutex
	texts map[any]string
}

// Text returns what write writes about the view. It is written once for each key, as long
// as there are not too many.
func (v *View) Text(key any, write func(v *View) string) string {
	m := &v.texts
	m.mu.Lock()
	defer m.mu.Unlock()
	if text, known := m.texts[key]; known {
		return text
	}
	text := write(v)
	if m.texts == nil || len(m.texts) >= maxMemo {
		m.texts = map[any]string{}
	}
	m.texts[key] = text
	return text
}
