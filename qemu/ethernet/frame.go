package ethernet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Sizes of a frame, without its check sequence.
const (
	MinFrame = 14 // the two addresses and the type
	MaxFrame = 65550
)

const prefixSize = 4

// MAC is the address of a network card.
type MAC [6]byte

// String returns the usual text: lower case, colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// group tells broadcast and multicast addresses (IEEE 802, the I/G bit).
func (m MAC) group() bool { return m[0]&1 != 0 }

// destination and source are only defined for a frame of MinFrame bytes or more.
func destination(frame []byte) MAC { return MAC(frame[0:6]) }
func source(frame []byte) MAC      { return MAC(frame[6:12]) }

// ReadFrame reads one frame in the framing of QEMU's stream network back end: its
// length as 4 bytes, big endian, then the frame. It returns io.EOF only at the end
// of a complete frame.
func ReadFrame(r io.Reader) ([]byte, error) {
	var prefix [prefixSize]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(prefix[:])
	if length < MinFrame || length > MaxFrame {
		return nil, fmt.Errorf("cannot read frame: its length is %d, not %d to %d", length, MinFrame, MaxFrame)
	}
	frame := make([]byte, length)
	if _, err := io.ReadFull(r, frame); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return frame, nil
}

// WriteFrame writes one frame in the same framing.
func WriteFrame(w io.Writer, frame []byte) error {
	var prefix [prefixSize]byte
	binary.BigEndian.PutUint32(prefix[:], uint32(len(frame)))
	if _, err := w.Write(prefix[:]); err != nil {
		return err
	}
	_, err := w.Write(frame)
	return err
}
