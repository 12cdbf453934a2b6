//! Columns by elastic tab stops, as Go's tabwriter lays them out, because Docker's tables do.
//!
//! A cell is text that ends with a tab. A column is a run of consecutive lines that all have a cell
//! at that place; it is as wide as its widest cell and the padding. The text after the last tab of a
//! line belongs to no column.

/// The measures of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TabWriter {
    /// The least width of a column, padding included.
    pub(crate) min_width: usize,
    /// Spaces after the widest cell.
    pub(crate) padding: usize,
}

/// Lists of objects.
pub(crate) const LIST_STYLE: TabWriter = TabWriter {
    min_width: 10,
    padding: 3,
};
/// The screen of `version`.
pub(crate) const VERSION_STYLE: TabWriter = TabWriter {
    min_width: 20,
    padding: 1,
};

impl TabWriter {
    /// Lays the text out.
    pub(crate) fn layout(self, text: &str) -> String {
        let lines: Vec<Vec<&str>> = text
            .split('\n')
            .map(|line| line.split('\t').collect())
            .collect();
        let mut widths = vec![Vec::new(); lines.len()];
        self.columns(&lines, 0, lines.len(), &mut widths);
        let mut out = String::with_capacity(text.len() * 2);
        for (at, cells) in lines.iter().enumerate() {
            if at > 0 {
                out.push('\n');
            }
            for (column, cell) in cells.iter().enumerate() {
                out += cell;
                if column + 1 < cells.len() {
                    let width = widths[at].get(column).copied().unwrap_or(0);
                    out.extend(std::iter::repeat_n(
                        ' ',
                        width.saturating_sub(cell.chars().count()),
                    ));
                }
            }
        }
        out
    }

    /// Finds the columns of the lines from..to, which all have the columns left of this one in common.
    fn columns(self, lines: &[Vec<&str>], from: usize, to: usize, widths: &mut [Vec<usize>]) {
        let column = widths.get(from).map_or(0, Vec::len);
        let mut at = from;
        while at < to {
            if lines[at].len() < column + 2 {
                at += 1;
                continue;
            }
            let start = at;
            let mut width = self.min_width;
            while at < to && lines[at].len() >= column + 2 {
                let cell = lines[at][column].chars().count();
                width = width.max(cell + self.padding);
                at += 1;
            }
            for line in &mut widths[start..at] {
                line.push(width);
            }
            self.columns(lines, start, at, widths);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_padding() {
        let text = "ID\tNAME\tSTATUS\nabcdefghijkl\tx\tUp\n";
        assert_eq!(
            LIST_STYLE.layout(text),
            "ID             NAME      STATUS\nabcdefghijkl   x         Up\n"
        );
    }

    #[test]
    fn a_line_without_the_cell_ends_the_column() {
        let text = "a\tb\nplain\nlonger than that\tc\n";
        assert_eq!(
            LIST_STYLE.layout(text),
            "a         b\nplain\nlonger than that   c\n"
        );
    }
}
