//! Which nodes of a graph the roots reach. Pure.

/// A graph over numbered nodes.
#[derive(Debug, Default)]
pub(super) struct Graph {
    edges: Vec<Vec<u32>>,
    /// Nodes that are reached without any edge.
    roots: Vec<u32>,
}

impl Graph {
    /// Adds a node and returns its number.
    pub(super) fn node(&mut self) -> u32 {
        self.edges.push(Vec::new());
        u32::try_from(self.edges.len() - 1).expect("fewer than 2^32 rows fit into memory")
    }

    /// `from` needs `to`.
    pub(super) fn edge(&mut self, from: u32, to: u32) {
        self.edges[from as usize].push(to);
    }

    /// The node is needed by itself.
    pub(super) fn root(&mut self, node: u32) {
        self.roots.push(node);
    }

    /// For every node, whether a root reaches it.
    pub(super) fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; self.edges.len()];
        let mut todo = self.roots.clone();
        while let Some(node) = todo.pop() {
            if !std::mem::replace(&mut reached[node as usize], true) {
                todo.extend(&self.edges[node as usize]);
            }
        }
        reached
    }
}
