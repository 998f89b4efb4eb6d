# `make demo` shows it at work; `make test` passes the whole suite (and installs what it needs, as root on Debian).
.PHONY: demo test

demo:
	cargo run --quiet --no-default-features -- demo

test:
	scripts/test
