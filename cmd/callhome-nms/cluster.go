package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"callhome/internal/nms/peering"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

func clusterCommand() *cli.Command {
	return &cli.Command{Name: "cluster", Usage: "prepare a cluster of stations", Subcommands: []*cli.Command{
		{Name: "init", Usage: "make a CA, and a certificate for each station", ArgsUsage: "STATION[,HOST...]...", Action: clusterInit, Flags: []cli.Flag{
			&cli.StringFlag{Name: "directory", Value: "callhome-cluster", Usage: "keep the CA in `DIR`, and the files of a station in DIR/STATION"},
			&cli.IntFlag{Name: "days", Value: 365, Usage: "make certificates of stations that are valid for `NUMBER` days"},
			&cli.BoolFlag{Name: "renew", Usage: "make a new certificate also for a station that has one, with the same hosts unless others are given"},
		}},
		bucketsCommand(),
	}}
}

// clusterInit makes what is not there yet, so it may be run again for further stations.
func clusterInit(c *cli.Context) error {
	days := c.Int("days")
	if c.NArg() == 0 || days < 1 {
		return program.Usage(errors.New("expected the names of stations, and --days above 0"))
	}
	for _, arg := range c.Args().Slice() {
		station, hosts := stationHosts(arg)
		if err := peering.CheckNames(station, hosts); err != nil {
			return program.Usage(err)
		}
	}
	dir := c.String("directory")
	ca, err := peering.OpenAuthority(dir)
	if err != nil {
		return sysexits.New(sysexits.NoInput, "name another --directory, or remove this one", err)
	}
	state := "is there"
	if ca.New() {
		state = "made"
	}
	fmt.Printf("CA: %s %s, valid until %s\n", filepath.Join(dir, peering.CAFile), state, day(ca.Expires()))
	for _, arg := range c.Args().Slice() {
		station, hosts := stationHosts(arg)
		files := filepath.Join(dir, station)
		former, expires, ok := peering.Issued(files)
		if ok && !c.Bool("renew") {
			fmt.Printf("station %s: the certificate in %s is kept, valid until %s\n", station, files, day(expires))
			continue
		}
		if len(hosts) == 0 {
			hosts = former // NATS servers of the station need them as before
		}
		expires, err := ca.Issue(files, station, hosts, time.Duration(days)*24*time.Hour)
		if err != nil {
			return err
		}
		fmt.Printf("station %s: certificate and key in %s, valid until %s\n", station, files, day(expires))
	}
	return nil
}

// stationHosts is an argument: a station, and further names for its certificate.
func stationHosts(arg string) (station string, hosts []string) {
	all := strings.Split(arg, ",")
	return all[0], all[1:]
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
