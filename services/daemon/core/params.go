package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/waltos/waltos/services/wire/pickle"
)

// paramsTimeout bounds the time that a client may take to say what it wants.
const paramsTimeout = 10 * time.Second

// paramsLimits bound the parameters of a stream.
var paramsLimits = pickle.Limits{Size: 1 << 20, Depth: 8, Values: 1 << 16}

// params are the parameters of a stream. Those that nobody asks for are ignored; one of
// another type than expected counts as absent.
type params struct{ dict *pickle.Dict }

// ready tells the client to send its parameters, and reads them.
func (s *stream) ready() (params, error) {
	if _, err := io.WriteString(s.conn, "READY\n"); err != nil {
		return params{}, fmt.Errorf("cannot answer: %w", err)
	}
	return s.params()
}

func (s *stream) params() (params, error) {
	s.conn.SetReadDeadline(time.Now().Add(paramsTimeout))
	defer s.conn.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(s, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	value, err := pickle.NewDecoder(s.conn.R, paramsLimits).Decode()
	if err != nil {
		return params{}, fmt.Errorf("cannot read parameters: %w", err)
	}
	dict, ok := value.(*pickle.Dict)
	if !ok {
		return params{}, errors.New("cannot read parameters: they are no dict")
	}
	return params{dict}, nil
}

func (p params) get(key string) any {
	value, _ := p.dict.Get(key)
	return value
}

func (p params) text(key string) string {
	s, _ := p.get(key).(string)
	return s
}

func (p params) flag(key string) bool { return p.get(key) == true }

func (p params) number(key string) int64 {
	n, _ := p.get(key).(int64)
	return n
}

// words returns a sequence of texts that will be arguments of a command.
func (p params) words(key string) ([]string, error) {
	value := p.get(key)
	if value == nil {
		return nil, nil
	}
	list, ok := sequence(value)
	if !ok || strings.ContainsRune(strings.Join(list, ""), 0) {
		return nil, fmt.Errorf("parameter %q is not a sequence of words", key)
	}
	return list, nil
}
