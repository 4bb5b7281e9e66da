package ethernet

import (
	"encoding/binary"
	"io"
	"time"
)

// capture writes frames in the pcap format (draft-ietf-opsawg-pcap), with
// microseconds, little endian, link type Ethernet.
type capture struct {
	w    io.Writer
	port string // "": all
}

const (
	pcapMagic    = 0xa1b2c3d4
	linkEthernet = 1
)

func (c *capture) header() error {
	var h [24]byte
	binary.LittleEndian.PutUint32(h[0:], pcapMagic)
	binary.LittleEndian.PutUint16(h[4:], 2) // version 2.4
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], MaxFrame)
	binary.LittleEndian.PutUint32(h[20:], linkEthernet)
	_, err := c.w.Write(h[:])
	return err
}

func (c *capture) packet(at time.Time, frame []byte) error {
	record := make([]byte, 16, 16+len(frame))
	binary.LittleEndian.PutUint32(record[0:], uint32(at.Unix()))
	binary.LittleEndian.PutUint32(record[4:], uint32(at.Nanosecond()/1000))
	binary.LittleEndian.PutUint32(record[8:], uint32(len(frame)))
	binary.LittleEndian.PutUint32(record[12:], uint32(len(frame)))
	_, err := c.w.Write(append(record, frame...))
	return err
}
