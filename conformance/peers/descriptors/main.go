// Writes the descriptors of Envoy's v3 API, and of what that is made of, as a FileDescriptorSet.
// How it is run stands in proto/descriptors/README.md.
package main

import (
	"log"
	"os"
	"sort"
	"strings"

	_ "github.com/cncf/xds/go/udpa/data/orca/v1"
	_ "github.com/cncf/xds/go/udpa/type/v1"
	_ "github.com/cncf/xds/go/xds/data/orca/v3"
	_ "github.com/cncf/xds/go/xds/type/matcher/v3"
	_ "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// What Envoy has taken no configuration of for years.
func isOld(path string) bool {
	return strings.HasPrefix(path, "envoy/api/v2") || strings.Contains(path, "/v2") || strings.Contains(path, "/v1")
}

func main() {
	wanted := map[string]protoreflect.FileDescriptor{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if _, known := wanted[file.Path()]; known {
			return
		}
		wanted[file.Path()] = file
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		path := file.Path()
		isEnvoys := strings.HasPrefix(path, "envoy/") && !isOld(path)
		if isEnvoys || strings.HasPrefix(path, "xds/") || strings.HasPrefix(path, "udpa/") {
			add(file)
		}
		return true
	})
	var set descriptorpb.FileDescriptorSet
	for _, file := range wanted {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	sort.Slice(set.File, func(a, b int) bool { return set.File[a].GetName() < set.File[b].GetName() })
	bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(&set)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := os.Stdout.Write(bytes); err != nil {
		log.Fatal(err)
	}
}
