// Pins what tests build where no grpcurl is installed: go build -mod=mod github.com/fullstorydev/grpcurl/cmd/grpcurl
module pemba.dev/grpcurl

go 1.24

require github.com/fullstorydev/grpcurl v1.9.3
