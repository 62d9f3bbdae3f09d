package types

import (
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/luxfi/api/zap"
)

func TestCountsThatNoBytesBack(t *testing.T) {
	const empty = "\x00\x00\x00\x00"
	for name, cluster := range map[string]string{
		"node names":    "\xff\xff\xff\xff",
		"node infos":    empty + "\x00\x10\x00\x00",
		"custom chains": empty + empty + empty + empty + "\x00" + "\x7f\xff\xff\xff",
		"one too many":  "\x00\x00\x00\x02" + empty,
	} {
		allocated := testing.AllocsPerRun(1, func() {
			var m StatusResponse
			if err := m.Decode(zap.NewReader([]byte("\x01" + cluster))); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: %v", name, err)
			}
		})
		if allocated > 20 {
			t.Errorf("%s: %v allocations", name, allocated)
		}
	}
	var m AddNodeRequest
	if err := m.Decode(zap.NewReader([]byte(empty + empty + "\x00" + "\xff\xff\xff\xff"))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("map of strings: %v", err)
	}
}

func TestAnyPresenceByteButZero(t *testing.T) {
	var m AttachPeerResponse
	if err := decodeWhole([]byte("\x00\x02\x00\x00\x00\x01p"), &m); err != nil || m.AttachedPeerInfo.ID != "p" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestTheLastOfOneNameWins(t *testing.T) {
	b := zap.NewBuffer(0)
	writeList(b, nil)
	b.WriteUint32(2)
	(&NodeInfo{Name: "n", URI: "first"}).Encode(b)
	(&NodeInfo{Name: "n", URI: "last"}).Encode(b)
	b.WriteInt32(0)
	b.WriteString("")
	b.WriteBool(false)
	b.WriteUint32(0)
	writeList(b, nil)
	b.WriteUint32(0)
	var m ClusterInfo
	if err := decodeWhole(b.Bytes(), &m); err != nil || len(m.NodeInfos) != 1 || m.NodeInfos["n"].URI != "last" {
		t.Errorf("%+v, %v", m, err)
	}
}

func FuzzMessages(f *testing.F) {
	kinds := [][2]string{}
	for i, v := range goldenMessages(f) {
		body, err := hex.DecodeString(v.Body)
		if err != nil {
			f.Fatal(err)
		}
		kinds = append(kinds, [2]string{v.RPC, v.Kind})
		f.Add(i, body)
	}
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		if i < 0 || i >= len(kinds) {
			return
		}
		m, again := newMessage(kinds[i][0], kinds[i][1]), newMessage(kinds[i][0], kinds[i][1])
		if m == nil || m.Decode(zap.NewReader(body)) != nil {
			return
		}
		b := zap.NewBuffer(0)
		m.Encode(b)
		if err := decodeWhole(b.Bytes(), again); err != nil {
			t.Errorf("%x: %v", b.Bytes(), err)
		}
		if !reflect.DeepEqual(m, again) {
			t.Errorf("%+v became %+v", m, again)
		}
	})
}
