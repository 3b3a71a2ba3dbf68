//! Sizes, times and tables for people.

use std::fmt::Write as _;

/// Bytes with three digits: `1.50 TB`, as disks are sold.
pub(super) fn size(bytes: u64) -> String {
    const NAMES: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut name) = (bytes as f64, 0);
    while value >= 999.5 && name + 1 < NAMES.len() {
        value /= 1000.0;
        name += 1;
    }
    let digits = match value {
        _ if name == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", NAMES[name])
}

/// The bytes that `512`, `64K`, `1.5G` or `4TB` mean: K, M, G, T are powers of 1024, KB, MB, GB, TB
/// of 1000.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no size: write 512M, 4G or 1.5T");
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| wrong())?;
    let unit = match text[end..].trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "K" | "KIB" => 1024.0,
        "M" | "MIB" => 1048576.0,
        "G" | "GIB" => 1073741824.0,
        "T" | "TIB" => 1099511627776.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return Err(wrong()),
    };
    let bytes = number * unit;
    if bytes < 9e18 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Microseconds: `750 us`, `12 ms`, `3.4 s`.
pub(super) fn duration(us: u64) -> String {
    match us {
        0..=9_999 => format!("{us} us"),
        10_000..=9_999_999 => format!("{} ms", us / 1000),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// Columns wide enough for what is in them; numbers to the right.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a first row of titles.
    pub(super) fn new(titles: &[&str]) -> Table {
        Table { rows: vec![titles.iter().map(|title| title.to_string()).collect()] }
    }

    /// One more row.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// All of it, each line indented by `indent` spaces.
    pub(super) fn print(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut text = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for (column, cell) in row.iter().enumerate() {
                let (pad, last) = (width(column), column + 1 == columns);
                let number = cell.starts_with(|c: char| c.is_ascii_digit());
                let written = match (number, last) {
                    (true, _) => write!(line, "{cell:>pad$}"),
                    (false, true) => write!(line, "{cell}"),
                    (false, false) => write!(line, "{cell:<pad$}"),
                };
                written.expect("writing to a String cannot fail");
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Prints, and says whether anybody still listens: `isotherm inspect ... | head` ends quietly.
pub(super) fn print(text: &str) -> bool {
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (999_499, "999 kB"),
            (999_999, "1.00 MB"),
            (4_000_787_030_016, "4.00 TB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (bytes, want) in table {
            assert_eq!(size(bytes), want);
        }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("64K"), Ok(65536));
        assert_eq!(parse_size("1.5 GiB"), Ok(1610612736));
        assert_eq!(parse_size("4TB"), Ok(4_000_000_000_000));
        for wrong in ["", "G", "-1", "1X", "1e3", "99999999T"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tables_align() {
        let mut table = Table::new(&["NAME", "SIZE", "NOTE"]);
        table.row(vec!["a".into(), "10 B".into(), "x".into()]);
        table.row(vec!["long".into(), "5 B".into(), String::new()]);
        assert_eq!(table.print(1), " NAME  SIZE  NOTE\n a     10 B  x\n long   5 B\n");
    }
}
