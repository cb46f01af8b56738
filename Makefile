# The names that Open Horizon users know, for scripts/: those say more with --help.
.PHONY: all build image test check demo clean install uninstall build-test-publish publish publish-service \
  publish-service-policy publish-deployment-policy publish-mms-object list-mms-object delete-mms-object deploy-check \
  agent-run agent-stop remove-service remove-service-policy remove-deployment-policy
.DEFAULT_GOAL := build

all: build publish

build image:
	scripts/image

test check:
	scripts/test

demo:
	scripts/demo

clean:
	cargo clean

build-test-publish: build test publish

install:
	scripts/install

uninstall:
	scripts/install --uninstall

publish:
	scripts/publish

publish-service:
	scripts/publish image service

publish-service-policy:
	scripts/publish service-policy

publish-deployment-policy:
	scripts/publish deployment-policy

# make publish-mms-object BUNDLE=edge.bundle
publish-mms-object:
	scripts/publish bundle '$(BUNDLE)'

list-mms-object:
	scripts/publish list-bundles

# make delete-mms-object ID=edge.1.0123456789ab
delete-mms-object:
	scripts/publish remove-bundle '$(ID)'

deploy-check:
	scripts/publish deploy-check

agent-run:
	scripts/publish register

agent-stop:
	scripts/publish unregister

remove-service:
	scripts/publish remove-service

remove-service-policy:
	scripts/publish remove-service-policy

remove-deployment-policy:
	scripts/publish remove-deployment-policy
