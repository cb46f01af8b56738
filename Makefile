# The names that Open Horizon users know, for scripts/: those say more with --help.
.PHONY: all build image build-all-arches test check demo clean distclean install uninstall build-test-publish \
  publish publish-only publish-all-arches publish-service publish-service-policy publish-deployment-policy \
  publish-mms-object list-mms-object delete-mms-object deploy-check agent-run agent-stop remove-service \
  remove-service-policy remove-deployment-policy
.DEFAULT_GOAL := build

all: build publish

build image:
	scripts/image

build-all-arches:
	scripts/image --arch amd64 --tag hzn-armor-agent_amd64
	scripts/image --arch arm64 --tag hzn-armor-agent_arm64

test check:
	scripts/test

demo:
	scripts/demo

clean distclean:
	cargo clean

build-test-publish: build test publish

install:
	scripts/install

uninstall:
	scripts/install --uninstall

publish:
	scripts/publish

# Of an image that 'scripts/publish image' has made.
publish-only:
	scripts/publish service service-policy deployment-policy

publish-all-arches:
	ARCH=amd64 scripts/publish image service service-policy
	ARCH=arm64 scripts/publish image service service-policy
	scripts/publish deployment-policy

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
