//! Provides a trie from the bits of an address to what its longest prefix stands for. The kernel side walks it four bits
//! at a time.

/// Number of bits that one node takes of an address.
const STRIDE: u8 = 4;
/// Number of entries of a node.
pub const ENTRIES: usize = 1 << STRIDE;

/// An `Entry` is what an entry of a node, or a whole trie, leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The node with this index.
    Node(u32),
    /// The value of the longest prefix.
    Value(u32),
}

/// Nodes of several tries.
pub(super) type Nodes = Vec<[Entry; ENTRIES]>;

/// Puts a value below `root`, for all addresses whose first `length` bits are those of `bits`, whose highest bit is an
/// address's first. Prefixes must come in the order of their lengths.
pub(super) fn insert(nodes: &mut Nodes, root: &mut Entry, bits: u128, length: u8, value: u32) {
    if length == 0 {
        *root = Entry::Value(value);
        return;
    }
    let mut node = node_at(nodes, *root);
    *root = Entry::Node(node);
    let (mut rest, mut bits) = (length, bits);
    loop {
        let first = (bits >> (128 - u32::from(STRIDE))) as usize;
        if rest <= STRIDE {
            nodes[node as usize][first..first + (1 << (STRIDE - rest))].fill(Entry::Value(value));
            return;
        }
        let next = node_at(nodes, nodes[node as usize][first]);
        nodes[node as usize][first] = Entry::Node(next);
        (node, rest, bits) = (next, rest - STRIDE, bits << STRIDE);
    }
}

/// Returns the node that an entry leads to; a value becomes a node that has it everywhere.
fn node_at(nodes: &mut Nodes, entry: Entry) -> u32 {
    match entry {
        Entry::Node(node) => node,
        Entry::Value(_) => {
            nodes.push([entry; ENTRIES]);
            nodes.len() as u32 - 1
        }
    }
}

/// Returns the value for an address, walking exactly as the kernel side does.
pub(super) fn find(nodes: &Nodes, root: Entry, bits: u128) -> u32 {
    let (mut entry, mut bits) = (root, bits);
    loop {
        match entry {
            Entry::Value(value) => return value,
            Entry::Node(node) => {
                entry = nodes[node as usize][(bits >> (128 - u32::from(STRIDE))) as usize];
                bits <<= STRIDE;
            }
        }
    }
}
