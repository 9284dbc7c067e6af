package verbs

import "fmt"

// Status is the status of a work completion: enum ibv_wc_status.
type Status uint32

// The statuses that callers tell apart.
const (
	StatusSuccess      Status = 0
	StatusLocLen       Status = 1
	StatusWRFlush      Status = 5
	StatusRemInvReq    Status = 9
	StatusRemAccess    Status = 10
	StatusRemOp        Status = 11
	StatusRetryExc     Status = 12
	StatusRNRRetryExc  Status = 13
	StatusGeneral      Status = 21
	StatusNotCompleted Status = 1 << 16   // ours: the queue pair was destroyed before a completion came
	StatusNoMessage    Status = 1<<16 | 1 // ours: a receive buffer was taken by something that is no message
)

var statusNames = [...]string{
	"IBV_WC_SUCCESS", "IBV_WC_LOC_LEN_ERR", "IBV_WC_LOC_QP_OP_ERR", "IBV_WC_LOC_EEC_OP_ERR",
	"IBV_WC_LOC_PROT_ERR", "IBV_WC_WR_FLUSH_ERR", "IBV_WC_MW_BIND_ERR", "IBV_WC_BAD_RESP_ERR",
	"IBV_WC_LOC_ACCESS_ERR", "IBV_WC_REM_INV_REQ_ERR", "IBV_WC_REM_ACCESS_ERR", "IBV_WC_REM_OP_ERR",
	"IBV_WC_RETRY_EXC_ERR", "IBV_WC_RNR_RETRY_EXC_ERR", "IBV_WC_LOC_RDD_VIOL_ERR",
	"IBV_WC_REM_INV_RD_REQ_ERR", "IBV_WC_REM_ABORT_ERR", "IBV_WC_INV_EECN_ERR",
	"IBV_WC_INV_EEC_STATE_ERR", "IBV_WC_FATAL_ERR", "IBV_WC_RESP_TIMEOUT_ERR", "IBV_WC_GENERAL_ERR",
	"IBV_WC_TM_ERR", "IBV_WC_TM_RNDV_INCOMPLETE",
}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	switch s {
	case StatusNotCompleted:
		return "no completion before the queue pair was destroyed"
	case StatusNoMessage:
		return "the peer took a receive buffer for what is no message"
	}
	return fmt.Sprintf("ibv_wc_status(%d)", uint32(s))
}

var eventNames = [...]string{
	"ADDR_RESOLVED", "ADDR_ERROR", "ROUTE_RESOLVED", "ROUTE_ERROR", "CONNECT_REQUEST", "CONNECT_RESPONSE",
	"CONNECT_ERROR", "UNREACHABLE", "REJECTED", "ESTABLISHED", "DISCONNECTED", "DEVICE_REMOVAL",
	"MULTICAST_JOIN", "MULTICAST_ERROR", "ADDR_CHANGE", "TIMEWAIT_EXIT",
}

func (t EventType) String() string {
	if t >= 0 && int(t) < len(eventNames) {
		return "RDMA_CM_EVENT_" + eventNames[t]
	}
	return fmt.Sprintf("rdma_cm_event_type(%d)", int32(t))
}

func (t GIDType) String() string {
	switch t {
	case GIDIB:
		return "IB"
	case GIDRoCEv1:
		return "RoCE v1"
	case GIDRoCEv2:
		return "RoCE v2"
	}
	return fmt.Sprintf("ibv_gid_type(%d)", uint32(t))
}
