package clusterstatus

import (
	"encoding/json"

	"google.golang.org/protobuf/reflect/protoreflect"

	"corfu/internal/wire/pb"
)

// JSON is the status as scripts and the web page read it: the names are those of internal/wire/pb/status.proto, every field
// is there, and 64-bit numbers are numbers (all of them stay below 2^53).
func JSON(m *pb.ClusterStatus) ([]byte, error) { return json.Marshal(object(m.ProtoReflect())) }

func object(m protoreflect.Message) map[string]any {
	all := map[string]any{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		v := m.Get(f)
		if !f.IsList() {
			all[string(f.Name())] = value(f, v)
			continue
		}
		list := make([]any, v.List().Len())
		for k := range list {
			list[k] = value(f, v.List().Get(k))
		}
		all[string(f.Name())] = list
	}
	return all
}

func value(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	if f.Kind() == protoreflect.MessageKind {
		return object(v.Message())
	}
	return v.Interface()
}
