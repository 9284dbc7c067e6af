package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// PFC is priority flow control of an Ethernet port.
type PFC struct {
	Enabled uint8 // a bit for each priority
	Classes uint8 // priorities that can have it at once
}

// errNoDCB: the driver has no data centre bridging.
var errNoDCB = errors.New("the driver has no DCB")

// From <linux/dcbnl.h>.
const (
	dcbCmdIEEEGet  = 21
	dcbAttrIfname  = 1
	dcbAttrIEEE    = 13
	dcbAttrIEEEPFC = 2
)

// dcbMsg is struct dcbmsg.
type dcbMsg struct{ cmd uint8 }

func (m dcbMsg) Len() int          { return 4 }
func (m dcbMsg) Serialize() []byte { return []byte{unix.AF_UNSPEC, m.cmd, 0, 0} }

// readPFC asks as `dcb pfc show` does (dcb-pfc(8)): RTM_GETDCB, DCB_CMD_IEEE_GET. Anybody may ask.
func readPFC(netdev string) (PFC, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETDCB, 0)
	req.AddData(dcbMsg{dcbCmdIEEEGet})
	req.AddData(nl.NewRtAttr(dcbAttrIfname, nl.ZeroTerminated(netdev)))
	answers, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return PFC{}, errNoDCB
	} else if err != nil {
		return PFC{}, fmt.Errorf("asking %s for its DCB settings: %w", netdev, err)
	}
	for _, a := range answers {
		if p, ok := parsePFC(a); ok {
			return p, nil
		}
	}
	return PFC{}, errNoDCB
}

// parsePFC finds struct ieee_pfc in an answer: pfc_cap and pfc_en are its first two bytes.
func parsePFC(answer []byte) (PFC, bool) {
	if len(answer) < 4 {
		return PFC{}, false
	}
	v := attribute(attribute(answer[4:], dcbAttrIEEE), dcbAttrIEEEPFC)
	if len(v) < 2 {
		return PFC{}, false
	}
	return PFC{Classes: v[0], Enabled: v[1]}, true
}

// attribute is the value of the first netlink attribute of a kind (netlink(7): length and type, 16 bits each, then the value, aligned to
// four bytes; the two upper bits of the type are flags). nl.ParseRouteAttr panics on a message that is cut off.
func attribute(b []byte, kind uint16) []byte {
	for len(b) >= 4 {
		n, k := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&0x3fff
		if n < 4 || n > len(b) {
			return nil
		}
		if k == kind {
			return b[4:n]
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// checkFlow tells what keeps RoCE from losing packets. A lost one costs a retransmission, not the log's safety, so nothing here fails.
func checkFlow(h *Host, m *machine, _ Wanted) []Result {
	p := m.active()
	switch {
	case m.tcp || p == nil:
		return nil
	case p.layer == "InfiniBand":
		return []Result{good("pfc", "not needed: InfiniBand gives credits")}
	case m.soft:
		return []Result{good("pfc", "not for Soft-RoCE: the kernel's network carries it")}
	case p.netdev == "":
		return nil
	}
	return []Result{h.flowPFC(p), h.flowECN(p), h.flowDSCP(m, p)}
}

func (h *Host) flowPFC(p *port) Result {
	const name = "pfc"
	pfc, err := h.PFC(p.netdev)
	switch {
	case err != nil:
		return warn(name, "look at the vendor's tool (mlnx_qos, niccli …) and at the switch", "not readable on %s: %v", p.netdev, err)
	case pfc.Enabled == 0:
		return warn(name, "dcb pfc set dev "+p.netdev+" prio-pfc 3:on, and the same on the switch; or see that ECN is on at both ends",
			"off for all priorities of %s: a full buffer drops packets", p.netdev)
	}
	var on []string
	for i := range 8 {
		if pfc.Enabled>>i&1 == 1 {
			on = append(on, fmt.Sprint(i))
		}
	}
	return good(name, "on for priority %s of %s (it can have %d)", strings.Join(on, ", "), p.netdev, pfc.Classes)
}

// flowECN reads what MLNX_OFED's driver shows (its manual, "RoCE: Explicit Congestion Notification": /sys/class/net/IF/ecn); other
// drivers keep DCQCN in firmware and show it to their own tools only.
func (h *Host) flowECN(p *port) Result {
	const name = "ecn"
	do := "look at the vendor's tool: both reaction and notification point want to be on (mlx5: mlxconfig ROCE_CC_PRIO_MASK_P1)"
	var on []string
	for _, point := range []string{"roce_np", "roce_rp"} {
		dir := filepath.Join("sys/class/net", p.netdev, "ecn", point, "enable")
		names := h.names(dir)
		if len(names) == 0 {
			return warn(name, do, "not readable on %s: its driver does not show it", p.netdev)
		}
		var prios []string
		for _, prio := range names {
			if h.word(dir, prio) == "1" {
				prios = append(prios, prio)
			}
		}
		if len(prios) == 0 {
			return warn(name, "echo 1 >/sys/class/net/"+p.netdev+"/ecn/"+point+"/enable/3", "%s is off for all priorities of %s", point, p.netdev)
		}
		on = append(on, point+" "+strings.Join(prios, ","))
	}
	return good(name, "on for priorities of %s: %s", p.netdev, strings.Join(on, "; "))
}

// flowDSCP reads the type of service that rdma_cm gives new connections: configfs rdma_cm/DEV/ports/N/default_roce_tos
// (Documentation/ABI/testing/configfs-rdma_cm), or with MLNX_OFED /sys/class/infiniband/DEV/tc/N/traffic_class. DSCP is its upper six bits.
func (h *Host) flowDSCP(m *machine, p *port) Result {
	const name = "dscp"
	n := fmt.Sprint(p.number)
	tos := h.word("sys/kernel/config/rdma_cm", m.name, "ports", n, "default_roce_tos")
	if tos == "" {
		tos = h.word(class, m.name, "tc", n, "traffic_class")
		tos = tos[strings.LastIndex(tos, "=")+1:]
	}
	v := 0
	if _, err := fmt.Sscan(tos, &v); tos == "" || err != nil {
		return warn(name, "mkdir /sys/kernel/config/rdma_cm/"+m.name+" shows it, and lets you set default_roce_tos (26<<2 is DSCP 26, usual for RoCE)",
			"not readable for %s: connections get 0, unless the network sets it", m.name)
	}
	if v>>2 == 0 {
		return warn(name, "echo 106 >…/default_roce_tos, and map DSCP 26 to the lossless priority on the switch", "0: the network cannot tell RoCE from anything else")
	}
	return good(name, "%d (type of service %d)", v>>2, v)
}
