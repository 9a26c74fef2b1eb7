// A peer for the benchmarks: go-control-plane behind a plain gRPC listener.
//
// Usage: go-control-plane MODE FILE. MODE is linear-delta, linear-sotw, snapshot-delta or snapshot-sotw; FILE holds the
// load assignments, each as three big-endian 32-bit lengths (name, body, offset of the change number), the name, and the
// encoded message. The first line on stdout is the address. Then each line "change INDEX NUMBER" on stdin is a change,
// answered by "ok"; the end of stdin is the end.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// assignment is one resource as the bench made it.
type assignment struct {
	name   string
	body   []byte
	offset int
}

// store is one of the two caches.
type store interface {
	cache() cache.Cache
	change(assignment assignment, number int) error
}

// everyone gives all nodes the same snapshot.
type everyone struct{}

func (everyone) ID(*core.Node) string { return "everyone" }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: %s linear-delta|linear-sotw|snapshot-delta|snapshot-sotw FILE", os.Args[0])
	}
	assignments, err := read(os.Args[2])
	if err != nil {
		return err
	}
	var held store
	switch os.Args[1] {
	case "linear-delta", "linear-sotw":
		held, err = newLinear(assignments)
	case "snapshot-delta", "snapshot-sotw":
		held, err = newSnapshots(assignments)
	default:
		err = fmt.Errorf("no such mode: %s", os.Args[1])
	}
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// As the project's own example: many streams on a connection, the rest as it comes.
	grpcServer := grpc.NewServer(grpc.MaxConcurrentStreams(1_000_000))
	discovery.RegisterAggregatedDiscoveryServiceServer(grpcServer, server.NewServer(context.Background(), held.cache(), nil))
	go func() {
		if err := grpcServer.Serve(listener); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}()
	fmt.Println(listener.Addr())
	return obey(held, assignments)
}

func obey(held store, assignments []assignment) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var index, number int
		if _, err := fmt.Sscanf(lines.Text(), "change %d %d", &index, &number); err != nil {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		if index < 0 || index >= len(assignments) {
			return fmt.Errorf("no assignment %d", index)
		}
		if err := held.change(assignments[index], number); err != nil {
			return err
		}
		fmt.Println("ok")
	}
	return lines.Err()
}

func read(path string) ([]assignment, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := bufio.NewReader(file)
	var assignments []assignment
	for {
		var lengths [3]uint32
		if err := binary.Read(reader, binary.BigEndian, &lengths); err == io.EOF {
			return assignments, nil
		} else if err != nil {
			return nil, err
		}
		text := make([]byte, lengths[0]+lengths[1])
		if _, err := io.ReadFull(reader, text); err != nil {
			return nil, err
		}
		assignments = append(assignments, assignment{
			name: string(text[:lengths[0]]), body: text[lengths[0]:], offset: int(lengths[2]),
		})
	}
}

// message is the load assignment that carries number.
func (a assignment) message(number int) (*endpoint.ClusterLoadAssignment, error) {
	body := append([]byte(nil), a.body...)
	if number > 0 {
		copy(body[a.offset:], fmt.Sprintf("%x:%x", 0x1000+number>>12, 0x1000+number&0xfff))
	}
	message := &endpoint.ClusterLoadAssignment{}
	return message, proto.Unmarshal(body, message)
}

func messages(assignments []assignment) (map[string]types.Resource, error) {
	resources := make(map[string]types.Resource, len(assignments))
	for _, assignment := range assignments {
		message, err := assignment.message(0)
		if err != nil {
			return nil, err
		}
		resources[assignment.name] = message
	}
	return resources, nil
}

type linear struct{ held *cache.LinearCache }

func newLinear(assignments []assignment) (store, error) {
	resources, err := messages(assignments)
	return linear{cache.NewLinearCache(resource.EndpointType, cache.WithInitialResources(resources))}, err
}

func (l linear) cache() cache.Cache { return l.held }

func (l linear) change(assignment assignment, number int) error {
	message, err := assignment.message(number)
	if err != nil {
		return err
	}
	return l.held.UpdateResource(assignment.name, message)
}

type snapshots struct {
	held      cache.SnapshotCache
	resources map[string]types.Resource
	version   int
}

func newSnapshots(assignments []assignment) (store, error) {
	resources, err := messages(assignments)
	if err != nil {
		return nil, err
	}
	s := &snapshots{held: cache.NewSnapshotCache(false, everyone{}, nil), resources: resources}
	return s, s.publish()
}

func (s *snapshots) cache() cache.Cache { return s.held }

func (s *snapshots) change(assignment assignment, number int) error {
	message, err := assignment.message(number)
	if err != nil {
		return err
	}
	s.resources[assignment.name] = message
	return s.publish()
}

func (s *snapshots) publish() error {
	s.version++
	all := make([]types.Resource, 0, len(s.resources))
	for _, resource := range s.resources {
		all = append(all, resource)
	}
	snapshot, err := cache.NewSnapshot(strconv.Itoa(s.version), map[resource.Type][]types.Resource{resource.EndpointType: all})
	if err != nil {
		return err
	}
	return s.held.SetSnapshot(context.Background(), everyone{}.ID(nil), snapshot)
}
