// Command offload is a CNI plug-in that is chained after one which makes a veth
// pair, such as bridge. It switches transmit checksum offload off at every
// interface that the plug-ins before it report: the one in the container, its
// peer on the host and the bridge.
//
// Nothing is to be undone: the setting ends with the interfaces.
package main

import (
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ns"

	"honeysens.org/dockersensor/cni/checksum"
	revision "honeysens.org/dockersensor/shared/version"
)

func main() {
	nothing := func(*skel.CmdArgs) error { return nil }
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: add, Check: check, Del: nothing, GC: nothing, Status: nothing,
	}, version.All, "CNI plug-in offload "+revision.Revision)
}

func add(args *skel.CmdArgs) error {
	conf, result, err := previous(args)
	if err != nil {
		return err
	}
	if err := each(result, args.Netns, checksum.Off); err != nil {
		return err
	}
	return types.PrintResult(result, conf.CNIVersion)
}

func check(args *skel.CmdArgs) error {
	_, result, err := previous(args)
	if err != nil {
		return err
	}
	return each(result, args.Netns, func(iface string) error {
		off, err := checksum.IsOff(iface)
		if err == nil && !off {
			err = fmt.Errorf("checksum offload of %s is on", iface)
		}
		return err
	})
}

// previous returns the configuration and what the plug-ins before did. Errors
// have the codes of the specification, section 5.
func previous(args *skel.CmdArgs) (*types.PluginConf, *current.Result, error) {
	conf := &types.PluginConf{}
	if err := json.Unmarshal(args.StdinData, conf); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "read configuration", err.Error())
	}
	if err := version.ParsePrevResult(conf); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "read previous result", err.Error())
	}
	if conf.PrevResult == nil {
		return nil, nil, types.NewError(types.ErrInvalidNetworkConfig, "no previous result", "offload must be chained after a plug-in that makes interfaces")
	}
	result, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "read previous result", err.Error())
	}
	return conf, result, nil
}

// each calls do for every interface, in the namespace where it is.
func each(result *current.Result, netns string, do func(iface string) error) error {
	for _, iface := range result.Interfaces {
		if iface.Sandbox == "" {
			if err := do(iface.Name); err != nil {
				return err
			}
			continue
		}
		if err := ns.WithNetNSPath(netns, func(ns.NetNS) error { return do(iface.Name) }); err != nil {
			return fmt.Errorf("in the container: %w", err)
		}
	}
	return nil
}
