package dhcp

import (
	"context"
	"fmt"
	"time"
)

// responds calls the loop that receives packets away from its socket, and waits until it has
// taken the lock that every packet needs. It does not send itself a packet: others would get
// it, too.
func (s *Server) responds(ctx context.Context) error {
	select {
	case <-s.checked: // too late for an earlier check
	default:
	}
	if err := s.udp.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return fmt.Errorf("cannot check this DHCP server: %w", err)
	}
	select {
	case <-s.checked:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot check this DHCP server: its loop does not answer: %w", ctx.Err())
	}
}

// answerCheck is what the loop does then.
func (s *Server) answerCheck() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.udp.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	select {
	case s.checked <- struct{}{}:
	default:
	}
	return nil
}
