module github.com/luxfi/zwing

go 1.24.0

require (
	github.com/cloudflare/circl v1.6.4
	github.com/luxfi/api v0.0.0
	golang.org/x/crypto v0.48.0
)

require golang.org/x/sys v0.41.0 // indirect

replace github.com/luxfi/api => ../api
