module peer

go 1.24.0

require (
	github.com/luxfi/api v0.0.0
	github.com/luxfi/netrunner v1.18.4
	github.com/luxfi/zwing v0.0.0
)

require (
	github.com/cloudflare/circl v1.6.4 // indirect
	golang.org/x/crypto v0.48.0 // indirect
	golang.org/x/sys v0.41.0 // indirect
)

replace (
	github.com/luxfi/api => ../standins/api
	github.com/luxfi/netrunner => ../standins/netrunner
	github.com/luxfi/zwing => ../standins/zwing
)
