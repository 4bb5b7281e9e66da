package sign

import (
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf16"

	"github.com/waltos/waltos/image/gpt"
)

// Variable is a variable of UEFI firmware that holds keys.
type Variable struct {
	Name       string
	Vendor     gpt.GUID
	Attributes uint32
	Time       time.Time // firmware refuses what is not newer than what it has
	Data       []byte    // signature lists
}

// The variables of Secure Boot: who may change keys, and who may sign programs.
const (
	PlatformKey  = "PK"  // signs changes of PK and KEK
	ExchangeKeys = "KEK" // sign changes of db
	Programs     = "db"  // sign programs
)

// nonvolatile, used at boot and at run time, authenticated by time.
const attributes = 0x01 | 0x02 | 0x04 | 0x20

var (
	globalVariables  = gpt.MustGUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
	imageSecurity    = gpt.MustGUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
	certificateX509  = gpt.MustGUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
	certificatePKCS7 = gpt.MustGUID("4aafd29d-68df-49ee-8aa9-347d375665a7")
)

// NewVariable returns one of the three variables with certificates (DER) that belong to
// an owner.
func NewVariable(name string, at time.Time, owner gpt.GUID, certificates ...[]byte) Variable {
	v := Variable{Name: name, Vendor: globalVariables, Attributes: attributes, Time: at.UTC().Truncate(time.Second)}
	if name == Programs {
		v.Vendor = imageSecurity
	}
	const listHeader = 16 + 3*4
	for _, certificate := range certificates { // a list each, as their sizes differ
		size := len(owner) + len(certificate)
		v.Data = append(v.Data, certificateX509[:]...)
		v.Data = binary.LittleEndian.AppendUint32(v.Data, uint32(listHeader+size))
		v.Data = binary.LittleEndian.AppendUint32(v.Data, 0)
		v.Data = binary.LittleEndian.AppendUint32(v.Data, uint32(size))
		v.Data = append(v.Data, owner[:]...)
		v.Data = append(v.Data, certificate...)
	}
	return v
}

// Variable returns what is to be written to a variable, with a signature: the content of
// an .auth file.
func (s *Signer) Variable(v Variable) ([]byte, error) {
	var message []byte
	for _, unit := range utf16.Encode([]rune(v.Name)) {
		message = binary.LittleEndian.AppendUint16(message, unit)
	}
	when := Time(v.Time)
	message = append(message, v.Vendor[:]...)
	message = binary.LittleEndian.AppendUint32(message, v.Attributes)
	message = append(message, when[:]...)
	message = append(message, v.Data...)
	signature, err := s.detached(message)
	if err != nil {
		return nil, fmt.Errorf("cannot sign variable %s: %w", v.Name, err)
	}
	const typeGUID = 0x0ef1
	out := when[:]
	out = binary.LittleEndian.AppendUint32(out, uint32(certificateHeader+len(certificatePKCS7)+len(signature)))
	out = binary.LittleEndian.AppendUint16(out, certificateRevision)
	out = binary.LittleEndian.AppendUint16(out, typeGUID)
	out = append(out, certificatePKCS7[:]...)
	out = append(out, signature...)
	return append(out, v.Data...), nil
}

// Time returns the EFI_TIME of a time: UTC, in seconds.
func Time(t time.Time) (out [16]byte) {
	t = t.UTC()
	binary.LittleEndian.PutUint16(out[:], uint16(t.Year()))
	out[2], out[3], out[4], out[5], out[6] = byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second())
	return out
}
