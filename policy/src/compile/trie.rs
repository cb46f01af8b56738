//! Provides a trie over bytes. A child is always created after its parent, so index order is top-down order.

use super::states::NONE;

#[derive(Clone, Copy)]
struct Node {
    byte: u8,
    child: u32,
    sibling: u32,
}

pub(super) struct Trie {
    nodes: Vec<Node>,
}

pub(super) const ROOT: u32 = 0;

impl Trie {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node { byte: 0, child: NONE, sibling: NONE }] }
    }

    pub(super) fn len(&self) -> u32 {
        self.nodes.len() as u32
    }

    pub(super) fn children(&self, node: u32) -> impl Iterator<Item = (u8, u32)> + '_ {
        let mut next = self.nodes[node as usize].child;
        std::iter::from_fn(move || {
            let here = (next != NONE).then_some(next)?;
            let Node { byte, sibling, .. } = self.nodes[here as usize];
            next = sibling;
            Some((byte, here))
        })
    }

    pub(super) fn child(&self, node: u32, byte: u8) -> Option<u32> {
        self.children(node).find(|(b, _)| *b == byte).map(|(_, child)| child)
    }

    /// Returns the node of a path, creating it if there is none.
    pub(super) fn insert(&mut self, path: &[u8]) -> u32 {
        self.insert_below(ROOT, path)
    }

    pub(super) fn insert_below(&mut self, node: u32, path: &[u8]) -> u32 {
        path.iter().fold(node, |node, &byte| match self.child(node, byte) {
            Some(child) => child,
            None => {
                let new = self.len();
                let sibling = std::mem::replace(&mut self.nodes[node as usize].child, new);
                self.nodes.push(Node { byte, child: NONE, sibling });
                new
            }
        })
    }
}
