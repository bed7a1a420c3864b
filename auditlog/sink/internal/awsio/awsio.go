// Package awsio makes configurations of the AWS SDK for sinks.
package awsio

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// Load returns the SDK's default configuration: credentials and region from the
// environment, the shared files or the instance. A region and an endpoint that
// are not empty go before.
func Load(ctx context.Context, region, endpoint string) (aws.Config, error) {
	if endpoint != "" {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.User != nil {
			return aws.Config{}, fmt.Errorf("the endpoint %q is no URL like https://s3.example.com", endpoint)
		}
		ip, err := netip.ParseAddr(u.Hostname())
		if loopback := u.Hostname() == "localhost" || err == nil && ip.IsLoopback(); u.Scheme != "https" && !(u.Scheme == "http" && loopback) {
			return aws.Config{}, fmt.Errorf("the endpoint %s must be spoken to over https; http is for a loopback address only", endpoint)
		}
	}
	var opts []func(*config.LoadOptions) error
	if region != "" {
		opts = append(opts, config.WithRegion(region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return aws.Config{}, err
	}
	if cfg.Region == "" {
		if endpoint == "" {
			return aws.Config{}, fmt.Errorf("no region is configured; set AWS_REGION")
		}
		cfg.Region = "us-east-1" // what servers other than Amazon's expect
	}
	if endpoint != "" {
		cfg.BaseEndpoint = aws.String(endpoint)
	}
	return cfg, nil
}
