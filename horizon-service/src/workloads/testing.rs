//! Makes policies for the tests of this directory.

use armor_policy::Policy;

pub(super) fn parse(spec: &str) -> Vec<Policy> {
    let text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p}}\nspec:\n  selector: \
         {{matchLabels: {{app: x}}}}\n{spec}"
    );
    armor_policy::parse("p.yaml", &text).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn host_policy(selector: &str) -> Policy {
    let text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: h}}\nspec:\n  nodeSelector: \
         {{matchLabels: {{{selector}}}}}\n  process: {{matchPaths: [{{path: /x}}]}}\n"
    );
    armor_policy::parse("h.yaml", &text).unwrap_or_else(|e| panic!("{e}")).remove(0)
}
