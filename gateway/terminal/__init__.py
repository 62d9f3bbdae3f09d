"""`zap-gateway watch`: what a stream tells, in a terminal."""
