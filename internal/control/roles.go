package control

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"corfu/internal/certs"
	"corfu/internal/wire/pb"
)

// rule says of a method who serves it and who may call it. Both ends look: a caller does not tell a server of another role anything.
type rule struct {
	servers []certs.Role
	callers []certs.Role
}

// Who calls: operators may do what clients may. Units and sequencers call nobody.
var (
	users   = []certs.Role{certs.Client, certs.Admin}
	leaders = []certs.Role{certs.Layout}
	admins  = []certs.Role{certs.Admin}
	watch   = []certs.Role{certs.Layout, certs.Admin}
)

// Who serves.
var (
	layouts = leaders
	units   = []certs.Role{certs.Unit}
	seqs    = []certs.Role{certs.Seq}
	members = []certs.Role{certs.Unit, certs.Seq}
)

// rules has a line for every method of the control plane. One that is not here is refused to all, in clear as well.
var rules = map[string]rule{
	pb.LayoutService_Get_FullMethodName:         {layouts, users},
	pb.LayoutService_Watch_FullMethodName:       {layouts, users},
	pb.LayoutService_NewClientID_FullMethodName: {layouts, users},
	pb.LayoutService_Reconfigure_FullMethodName: {layouts, admins},
	pb.LayoutService_Status_FullMethodName:      {layouts, watch},
	pb.LayoutService_Cluster_FullMethodName:     {layouts, watch},

	pb.LayoutService_ReportUnreachable_FullMethodName: {layouts, users},
	pb.LayoutService_Recover_FullMethodName:           {layouts, admins},

	pb.LayoutServerService_State_FullMethodName: {layouts, watch},
	pb.LayoutServerService_Found_FullMethodName: {layouts, leaders},
	pb.LayoutServerService_Admit_FullMethodName: {layouts, leaders},

	pb.LayoutServerService_NoteStops_FullMethodName: {layouts, leaders},

	pb.UnitService_OpenSession_FullMethodName: {units, users},
	pb.UnitService_Seal_FullMethodName:        {units, leaders},
	pb.UnitService_Entries_FullMethodName:     {units, watch},
	pb.UnitService_Backfill_FullMethodName:    {units, leaders},
	pb.UnitService_Reconcile_FullMethodName:   {units, leaders},
	pb.UnitService_Activate_FullMethodName:    {units, leaders},
	pb.UnitService_Reserve_FullMethodName:     {units, leaders},
	pb.UnitService_State_FullMethodName:       {units, watch},
	pb.UnitService_Known_FullMethodName:       {units, watch},
	pb.UnitService_Corrupt_FullMethodName:     {units, watch},
	pb.UnitService_Durable_FullMethodName:     {units, users},
	pb.UnitService_Fetch_FullMethodName:       {units, leaders},
	pb.UnitService_Repair_FullMethodName:      {units, leaders},
	pb.UnitService_Scrub_FullMethodName:       {units, admins},

	pb.MessageService_OpenReader_FullMethodName: {members, users},
	pb.MessageService_OpenSealer_FullMethodName: {members, leaders},

	pb.SequencerService_OpenSession_FullMethodName: {seqs, users},
	pb.SequencerService_Seal_FullMethodName:        {seqs, leaders},
	pb.SequencerService_Activate_FullMethodName:    {seqs, leaders},
	pb.SequencerService_State_FullMethodName:       {seqs, watch},
}

// Caller is who called, as TLS has it. The zero Identity, without an error: the connection is in clear, and nobody knows.
func Caller(ctx context.Context) (certs.Identity, error) {
	p, ok := peer.FromContext(ctx)
	if !ok || p.AuthInfo == nil || p.AuthInfo.AuthType() == "insecure" {
		return certs.Identity{}, nil
	}
	return identity(p.AuthInfo)
}

// Standing is what becomes of the caller: nil in clear. What a caller gets that is not of the connection of the call ends with it.
func Standing(ctx context.Context) *certs.Standing {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, _ := p.AuthInfo.(authInfo)
	return info.standing
}

// identity of the other end. Whatever kind of credentials it is that this package does not know is refused.
func identity(a credentials.AuthInfo) (certs.Identity, error) {
	info, ok := a.(authInfo)
	if !ok {
		return certs.Identity{}, fmt.Errorf("credentials of type %T: %w", a, certs.ErrIdentity)
	}
	return certs.Peer(info.State)
}

// authorize refuses what the caller's role may not do.
func authorize(ctx context.Context, method string) error {
	r, ok := rules[method]
	if !ok {
		return status.Errorf(codes.PermissionDenied, "%s: nobody may call that", method)
	}
	id, err := Caller(ctx)
	switch {
	case err != nil:
		return status.Errorf(codes.Unauthenticated, "%s: %v", method, err)
	case id == (certs.Identity{}): // in clear: whoever reaches the listener may
		return nil
	case !slices.Contains(r.callers, id.Role):
		return status.Errorf(codes.PermissionDenied, "%v may not call %s: it takes a certificate of role %v", id, method, r.callers)
	}
	return nil
}

func authorizeUnary(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, q)
}

func authorizeStream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := authorize(s.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, s)
}

// rightServer keeps a call from a server whose certificate is not of the role that serves the method: gRPC asks for a call's metadata before it
// sends anything of the call.
type rightServer struct{}

var errWrongServer = errors.New("the server has the certificate of another role")

// GetRequestMetadata implements credentials.PerRPCCredentials. It adds nothing.
func (rightServer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	id, err := identity(info.AuthInfo)
	switch r, ok := rules[info.Method]; {
	case err != nil:
		return nil, status.Errorf(codes.Unauthenticated, "%s: %v", info.Method, err)
	case !ok || !slices.Contains(r.servers, id.Role):
		return nil, status.Errorf(codes.Unauthenticated, "%s answers where role %v must: %v", id, r.servers, errWrongServer)
	}
	return nil, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (rightServer) RequireTransportSecurity() bool { return true }
