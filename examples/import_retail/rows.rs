//! Reading a retail file: bytes to rows, or where in the file that failed.
//!
//! The format is that of the UCI Online Retail set as semicolon-separated text: decimal commas,
//! `day/month/year hour:minute` in London, an optional byte-order mark, UTF-8 or else Latin-1.

use std::borrow::Cow;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use rust_decimal::Decimal;

/// The columns, in this order, named in the first line of the file.
const COLUMNS: [&str; 8] = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
];

/// The user who stands for customers without a number.
pub(crate) const GUEST: i64 = 0;

/// One line of an invoice.
#[derive(Debug)]
pub(crate) struct Row {
    /// The row and its place in the file, as text: what event IDs derive from.
    pub(crate) identity: String,
    pub(crate) invoice: String,
    pub(crate) stock_code: String,
    /// What the article is called; its stock code where the file has no name for it.
    pub(crate) name: String,
    pub(crate) quantity: i64,
    pub(crate) at: Timestamp,
    pub(crate) unit_price: Decimal,
    pub(crate) user_id: i64,
    pub(crate) country: String,
}

/// The file is not what it should be. Nothing of it is published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("line 1: expected the columns {expected}, found {found}", expected = COLUMNS.join(";"))]
    Header { found: String },
    #[error("line {line}: {cause}")]
    Record { line: u64, cause: csv::Error },
    #[error("line {line}, {column}: {value:?} is not {expected}")]
    Field {
        line: u64,
        column: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("the time zone database has no Europe/London: {0}")]
    TimeZone(jiff::Error),
}

/// All rows of a file.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Row>, ReadError> {
    let london = TimeZone::get("Europe/London").map_err(ReadError::TimeZone)?;
    let text = decode(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b';')
        .from_reader(text.as_bytes());

    let header = reader.headers().map_err(record_error)?;
    if header.iter().ne(COLUMNS) {
        return Err(ReadError::Header {
            found: header.iter().collect::<Vec<_>>().join(";"),
        });
    }
    (1_u64..)
        .zip(reader.records())
        .map(|(number, record)| row(number, &record.map_err(record_error)?, &london))
        .collect()
}

/// UTF-8 if the bytes are; if not, Latin-1, where each byte is the character of that number.
fn decode(bytes: &[u8]) -> Cow<'_, str> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

fn record_error(cause: csv::Error) -> ReadError {
    ReadError::Record {
        line: cause.position().map_or(1, csv::Position::line),
        cause,
    }
}

fn row(number: u64, record: &csv::StringRecord, london: &TimeZone) -> Result<Row, ReadError> {
    let line = record.position().map_or(number, csv::Position::line);
    // The reader has checked that each record is as long as the header.
    let field = |column: usize| record.get(column).unwrap_or_default().trim();
    let wrong = |column: usize, expected| ReadError::Field {
        line,
        column: COLUMNS.get(column).copied().unwrap_or_default(),
        value: field(column).to_owned(),
        expected,
    };

    let (invoice, stock_code, description) = (field(0), field(1), field(2));
    if invoice.is_empty() {
        return Err(wrong(0, "an invoice number"));
    }
    if stock_code.is_empty() {
        return Err(wrong(1, "a stock code"));
    }
    let at = DateTime::strptime("%d/%m/%Y %H:%M", field(4))
        .and_then(|time| time.to_zoned(london.clone()))
        .map_err(|_| wrong(4, "a time like 1/12/2010 08:26"))?;
    Ok(Row {
        identity: format!("{number}\n{}", record.iter().collect::<Vec<_>>().join("\n")),
        invoice: invoice.to_owned(),
        stock_code: stock_code.to_owned(),
        name: if description.is_empty() {
            stock_code
        } else {
            description
        }
        .to_owned(),
        quantity: field(3).parse().map_err(|_| wrong(3, "a whole number"))?,
        at: at.timestamp(),
        unit_price: Decimal::from_str_exact(&field(5).replace(',', "."))
            .map_err(|_| wrong(5, "a price like 2,55"))?,
        user_id: match field(6) {
            "" => GUEST,
            number => number.parse().map_err(|_| wrong(6, "a customer number"))?,
        },
        country: field(7).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "InvoiceNo;StockCode;Description;Quantity;InvoiceDate;UnitPrice;CustomerID;Country\n";

    fn with(rows: &str) -> String {
        format!("{HEADER}{rows}")
    }

    #[test]
    fn a_row_is_read_exactly() {
        let text = with("536365;85123A;\" A;B \";-6;1/7/2011 00:30;2,550;;EIRE\n");
        let rows = read(text.as_bytes()).unwrap();
        let [row] = rows.as_slice() else {
            panic!("{rows:?}")
        };
        assert_eq!(
            (row.name.as_str(), row.quantity, row.user_id),
            ("A;B", -6, GUEST)
        );
        assert_eq!(row.unit_price.to_string(), "2.550");
        assert_eq!(
            row.at.to_string(),
            "2011-06-30T23:30:00Z",
            "London is on summer time in July"
        );
    }

    #[test]
    fn text_is_utf_8_or_else_latin_1() {
        assert_eq!(decode("\u{FEFF}caf\u{E9}".as_bytes()), "caf\u{E9}");
        assert_eq!(decode(b"\xEF\xBB\xBFcaf\xE9 \xA35"), "caf\u{E9} \u{A3}5");
    }

    #[test]
    fn errors_name_the_place() {
        let error = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        let good = "1;a;b;1;1/12/2010 08:26;1;1;France\n";
        assert_eq!(
            error(&with(&format!("{good}{}", good.replace("b;1;", "b;one;")))),
            "line 3, Quantity: \"one\" is not a whole number"
        );
        assert!(error(&with("1;a;b\n")).starts_with("line 2: "));
        assert!(error(&with(&good.replace("/12/", "/13/"))).starts_with("line 2, InvoiceDate: "));
        assert!(error(good).starts_with("line 1: expected the columns InvoiceNo;StockCode;"));
    }
}
