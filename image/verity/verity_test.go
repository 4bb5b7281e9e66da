package verity

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestAppend(t *testing.T) {
	salt := bytes.Repeat([]byte{0xab, 0xcd}, 16)
	for _, blocks := range []int64{1, 2, 128, 129, 128*128 + 1} {
		t.Run(fmt.Sprint(blocks), func(t *testing.T) {
			data := make([]byte, blocks*BlockSize)
			rand.NewChaCha8([32]byte{byte(blocks)}).Read(data)
			path := filepath.Join(t.TempDir(), "data")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			root, length, err := Append(f, int64(len(data)), salt)
			if err != nil {
				t.Fatal(err)
			}
			tree := make([]byte, length)
			if _, err := f.ReadAt(tree, int64(len(data))); err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(int64(len(data))); err != nil {
				t.Fatal(err)
			}
			judge(t, path, tree, hex.EncodeToString(root[:]), hex.EncodeToString(salt))
		})
	}
}

// judge compares with what veritysetup makes, where it is installed.
func judge(t *testing.T, path string, tree []byte, root, salt string) {
	t.Helper()
	tool, err := exec.LookPath("veritysetup")
	if err != nil {
		t.Skip("not judged: veritysetup is not on this machine")
	}
	out, err := exec.Command(tool, "format", "--no-superblock", "--salt="+salt, path, path+".tree").CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), root) {
		t.Errorf("root hash is %s, but veritysetup says\n%s", root, out)
	}
	want, err := os.ReadFile(path + ".tree")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(tree, want) {
		t.Errorf("tree of %d bytes differs from veritysetup's of %d", len(tree), len(want))
	}
}

func TestRefusals(t *testing.T) {
	for _, size := range []int64{0, -1, 4095, 4097} {
		if _, _, err := Append(nil, size, nil); err == nil {
			t.Errorf("size %d was accepted", size)
		}
	}
}
