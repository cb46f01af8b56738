//! Provides a trie over bytes. A child is always created after its parent, so index order is top-down order.

use super::states::NONE;

#[derive(Clone, Copy)]
struct Node {
    byte: u8,
    child: u32,
    sibling: u32,
}

pub(crate) struct Trie {
    nodes: Vec<Node>,
}

pub(crate) const ROOT: u32 = 0;

impl Trie {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node { byte: 0, child: NONE, sibling: NONE }] }
    }

    pub(crate) fn len(&self) -> u32 {
        self.nodes.len() as u32
    }

    pub(crate) fn children(&self, node: u32) -> impl Iterator<Item = (u8, u32)> + '_ {
        let mut next = self.nodes[node as usize].child;
        std::iter::from_fn(move || {
            let here = (next != NONE).then_some(next)?;
            let Node { byte, sibling, .. } = self.nodes[here as usize];
            next = sibling;
            Some((byte, here))
        })
    }

    pub(crate) fn child(&self, node: u32, byte: u8) -> Option<u32> {
        self.children(node).find(|(b, _)| *b == byte).map(|(_, child)| child)
    }

    /// Returns the node of a path, creating it if there is none.
    pub(crate) fn insert(&mut self, path: &[u8]) -> u32 {
        self.insert_below(ROOT, path)
    }

    pub(crate) fn insert_below(&mut self, node: u32, path: &[u8]) -> u32 {
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
