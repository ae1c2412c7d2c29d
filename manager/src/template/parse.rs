//! Text ─▶ [`Template`].

use super::{Error, Kind};
use crate::limits::TEMPLATE_DEPTH_MAX;

/// A template that was read without fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// Prints its value, unless it sets a variable.
    Action(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipe {
    /// Variables that get the value; two in a `range`.
    pub(super) sets: Vec<String>,
    /// Whether they are new.
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
    /// Where it is, for messages.
    pub(super) at: (usize, usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    /// `.` and fields of it.
    Dot(Vec<String>),
    /// `$name` and fields of it; the name is empty for `$`.
    Variable(String, Vec<String>),
    Text(String),
    Number(i64),
    Bool(bool),
    Nil,
    Function(String),
    /// `(…)` and fields of it.
    Pipe(Box<Pipe>, Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    /// `.`, `.A`, `.A.B`.
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Text(String),
    Number(i64),
    Open,
    /// `)` and fields of what is in the parentheses.
    Close(Vec<String>),
    Bar,
    Comma,
    Declare,
    Assign,
}

/// A piece of the template: text, or what is between `{{` and `}}`.
enum Piece {
    Text(String),
    Action(Vec<Token>, (usize, usize)),
}

/// Functions of every template.
const FUNCTIONS: [&str; 16] = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "print", "println", "printf", "join",
    "urlquery",
];
/// Functions of bodies.
const BODY_FUNCTIONS: [&str; 3] = ["secret", "config", "env"];

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Where and what is wrong.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, Error> {
        let pieces = pieces(text)?;
        let mut parser = Parser { pieces: pieces.into_iter(), kind, depth: 0, last: (1, 1) };
        let (nodes, end) = parser.nodes()?;
        match end {
            None => Ok(Self { nodes }),
            Some(Ending { word, at, .. }) => Err(error(at, format!("unexpected {{{{{word}}}}}"))),
        }
    }
}

fn error((line, column): (usize, usize), what: impl Into<String>) -> Error {
    Error { line, column, what: what.into() }
}

fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    (line, column)
}

fn pieces(text: &str) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut rest = 0;
    let mut trim = false;
    // Counted on the way: the text may be large and have many actions.
    let (mut seen, mut line, mut start) = (0, 1, 0);
    while let Some(found) = text[rest..].find("{{") {
        let open = rest + found;
        for (at, byte) in text.as_bytes()[seen..open].iter().enumerate() {
            if *byte == b'\n' {
                (line, start) = (line + 1, seen + at + 1);
            }
        }
        seen = open;
        let at = (line, open - start + 1);
        let mut before = &text[rest..open];
        if std::mem::take(&mut trim) {
            before = before.trim_start();
        }
        let mut inside = open + 2;
        let bytes = text.as_bytes();
        if bytes.get(inside) == Some(&b'-') && bytes.get(inside + 1).is_some_and(u8::is_ascii_whitespace) {
            before = before.trim_end();
            inside += 1;
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let body = text[inside..].trim_start();
        let skipped = text.len() - body.len();
        let end = if body.starts_with("/*") {
            let end = body.find("*/").ok_or_else(|| error(at, "unclosed comment"))?;
            let after = skipped + end + 2;
            let close = text[after..].trim_start();
            let close_at = text.len() - close.len();
            if close.starts_with("}}") {
                close_at + 2
            } else if close.starts_with("-}}") && close_at > after {
                trim = true;
                close_at + 3
            } else {
                return Err(error(at, "comment ends before closing delimiter"));
            }
        } else {
            let (tokens, end, trims) =
                tokens(text, inside).map_err(|(offset, what)| error(place(text, offset), what))?;
            trim = trims;
            pieces.push(Piece::Action(tokens, at));
            end
        };
        rest = end;
    }
    let last = if trim { text[rest..].trim_start() } else { &text[rest..] };
    if !last.is_empty() {
        pieces.push(Piece::Text(last.to_owned()));
    }
    Ok(pieces)
}

/// The tokens of an action that begins at `at`; where it ends, and whether it trims what follows.
fn tokens(text: &str, mut at: usize) -> Result<(Vec<Token>, usize, bool), (usize, String)> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    loop {
        let rest = &text[at..];
        let Some(first) = rest.chars().next() else { return Err((at, "unclosed action".to_owned())) };
        if rest.starts_with("}}") {
            return Ok((tokens, at + 2, false));
        }
        if first.is_ascii_whitespace() {
            at += 1;
            if text[at..].starts_with("-}}") {
                return Ok((tokens, at + 3, true));
            }
            continue;
        }
        let (token, length) = match first {
            '|' => (Token::Bar, 1),
            ',' => (Token::Comma, 1),
            '(' => (Token::Open, 1),
            ')' => {
                let (names, length) = fields(&rest[1..]);
                (Token::Close(names), 1 + length)
            }
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '=' => (Token::Assign, 1),
            '"' => quoted(rest).map_err(|what| (at, what))?,
            '`' => match rest[1..].find('`') {
                Some(end) => (Token::Text(rest[1..=end].to_owned()), end + 2),
                None => return Err((at, "unterminated raw quoted string".to_owned())),
            },
            '.' => {
                let (names, length) = fields(rest);
                (Token::Field(names), length.max(1))
            }
            '$' => {
                let name = word(&rest[1..]);
                let (names, length) = fields(&rest[1 + name.len()..]);
                (Token::Variable(name.to_owned(), names), 1 + name.len() + length)
            }
            '0'..='9' | '-' | '+' => {
                let digits = rest[1..].bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'.').count();
                let number = rest[..=digits].parse().map_err(|_| (at, "bad number syntax".to_owned()))?;
                (Token::Number(number), 1 + digits)
            }
            _ => {
                let name = word(rest);
                if name.is_empty() {
                    return Err((at, "unexpected character in an action".to_owned()));
                }
                (Token::Word(name.to_owned()), name.len())
            }
        };
        at += length;
        tokens.push(token);
        let stuck = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'"' | b'`' | b'_');
        let ends_word = matches!(tokens.last(), Some(Token::Word(_) | Token::Text(_) | Token::Number(_)));
        if ends_word && bytes.get(at).is_some_and(stuck) {
            return Err((at, "a space is missing".to_owned()));
        }
    }
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_numeric()) { "" } else { &text[..end] }
}

/// `.A.B`: the names and how many bytes they take.
fn fields(text: &str) -> (Vec<String>, usize) {
    let (mut names, mut at) = (Vec::new(), 0);
    while let Some(rest) = text[at..].strip_prefix('.') {
        let name = word(rest);
        if name.is_empty() {
            break;
        }
        names.push(name.to_owned());
        at += 1 + name.len();
    }
    (names, at)
}

/// A Go string in double quotes.
fn quoted(text: &str) -> Result<(Token, usize), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(value), at + 1)),
            '\n' => break,
            '\\' => value.push(match chars.next().map(|(_, c)| c) {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(c @ ('"' | '\\' | '\'')) => c,
                _ => return Err("this escape is not supported in a string: use \\n, \\t, \\r, \\\" or \\\\".to_owned()),
            }),
            c => value.push(c),
        }
    }
    Err("unterminated quoted string".to_owned())
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    kind: Kind,
    depth: usize,
    last: (usize, usize),
}

/// `{{end}}`, `{{else}}` or `{{else if …}}`.
struct Ending {
    word: String,
    rest: Vec<Token>,
    at: (usize, usize),
}

impl Parser {
    fn deeper(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > TEMPLATE_DEPTH_MAX {
            return Err(error(self.last, format!("more than {TEMPLATE_DEPTH_MAX} levels of nesting")));
        }
        Ok(())
    }

    /// Nodes up to an ending that is not theirs.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<Ending>), Error> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (mut tokens, at) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, at) => (tokens, at),
            };
            self.last = at;
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.clone(),
                Some(_) => String::new(),
                None => return Err(error(at, "missing value for command")),
            };
            match keyword.as_str() {
                "end" | "else" => {
                    return Ok((nodes, Some(Ending { word: keyword, rest: tokens.split_off(1), at })));
                }
                "if" | "with" | "range" => nodes.push(self.block(&keyword, tokens.split_off(1), at)?),
                "define" | "template" | "block" | "break" | "continue" => {
                    return Err(error(at, format!("{{{{{keyword}}}}} is not supported")));
                }
                _ => nodes.push(Node::Action(self.whole_pipe(tokens, at, 1)?)),
            }
        }
        Ok((nodes, None))
    }

    fn block(&mut self, keyword: &str, tokens: Vec<Token>, at: (usize, usize)) -> Result<Node, Error> {
        self.deeper()?;
        let pipe = self.whole_pipe(tokens, at, if keyword == "range" { 2 } else { 1 })?;
        let (then, ending) = self.nodes()?;
        let otherwise = match ending {
            None => return Err(error(at, format!("{{{{{keyword}}}}} without {{{{end}}}}"))),
            Some(ending) if ending.word == "else" => self.otherwise(ending, keyword)?,
            Some(ending) => {
                nothing_more(&ending)?;
                Vec::new()
            }
        };
        self.depth -= 1;
        Ok(match keyword {
            "if" => Node::If(pipe, then, otherwise),
            "with" => Node::With(pipe, then, otherwise),
            _ => Node::Range(pipe, then, otherwise),
        })
    }

    /// What follows `{{else}}`; `{{else if}}` shares the `{{end}}`.
    fn otherwise(&mut self, mut ending: Ending, keyword: &str) -> Result<Vec<Node>, Error> {
        if let Some(Token::Word(word)) = ending.rest.first().cloned() {
            if word != keyword || word == "range" {
                return Err(error(ending.at, "unexpected text after else"));
            }
            let rest = ending.rest.split_off(1);
            return Ok(vec![self.block(&word, rest, ending.at)?]);
        }
        nothing_more(&ending)?;
        match self.nodes()? {
            (nodes, Some(end)) if end.word == "end" => nothing_more(&end).map(|()| nodes),
            (_, Some(end)) => Err(error(end.at, "expected {{end}}; found {{else}}")),
            (_, None) => Err(error(ending.at, "{{else}} without {{end}}")),
        }
    }

    /// A pipe that takes all tokens, and may set variables.
    fn whole_pipe(&mut self, tokens: Vec<Token>, at: (usize, usize), variables_max: usize) -> Result<Pipe, Error> {
        let setter = tokens.iter().position(|token| matches!(token, Token::Declare | Token::Assign));
        let (sets, declares, rest) = match setter {
            None => (Vec::new(), false, tokens),
            Some(end) => {
                let mut tokens = tokens;
                let rest = tokens.split_off(end + 1);
                let declares = tokens.pop() == Some(Token::Declare);
                let mut sets = Vec::new();
                for (number, token) in tokens.into_iter().enumerate() {
                    let Token::Variable(name, fields) = token else {
                        if token == Token::Comma && number % 2 == 1 {
                            continue;
                        }
                        return Err(error(at, "only variables can be set"));
                    };
                    if number % 2 == 1 || !fields.is_empty() || name.is_empty() {
                        return Err(error(at, "only variables can be set"));
                    }
                    sets.push(name);
                }
                if sets.is_empty() || sets.len() > variables_max {
                    return Err(error(at, "too many or no variables to set"));
                }
                (sets, declares, rest)
            }
        };
        let mut tokens = rest.into_iter();
        let (commands, closed) = self.commands(&mut tokens, at)?;
        if closed.is_some() {
            return Err(error(at, "unexpected right parenthesis"));
        }
        Ok(Pipe { sets, declares, commands, at })
    }

    /// Commands up to the end or a closing parenthesis, whose fields are returned.
    #[expect(clippy::type_complexity, reason = "commands and the fields after a parenthesis")]
    fn commands(
        &mut self,
        tokens: &mut std::vec::IntoIter<Token>,
        at: (usize, usize),
    ) -> Result<(Vec<Vec<Operand>>, Option<Vec<String>>), Error> {
        let mut commands = vec![Vec::new()];
        let mut closed = None;
        for_each(tokens, |token, tokens| {
            let operand = match token {
                Token::Bar => {
                    commands.push(Vec::new());
                    return Ok(true);
                }
                Token::Close(fields) => {
                    closed = Some(fields);
                    return Ok(false);
                }
                Token::Open => {
                    self.deeper()?;
                    let (inner, end) = self.commands(tokens, at)?;
                    self.depth -= 1;
                    let Some(fields) = end else { return Err(error(at, "unclosed left parenthesis")) };
                    let pipe = Pipe { sets: Vec::new(), declares: false, commands: inner, at };
                    Operand::Pipe(Box::new(pipe), fields)
                }
                Token::Field(names) => Operand::Dot(names),
                Token::Variable(name, fields) => Operand::Variable(name, fields),
                Token::Text(text) => Operand::Text(text),
                Token::Number(number) => Operand::Number(number),
                Token::Word(word) => match word.as_str() {
                    "true" => Operand::Bool(true),
                    "false" => Operand::Bool(false),
                    "nil" => Operand::Nil,
                    _ => self.function(word, at)?,
                },
                Token::Comma | Token::Declare | Token::Assign => {
                    return Err(error(at, "unexpected , or = in an action"));
                }
            };
            if let Some(command) = commands.last_mut() {
                command.push(operand);
            }
            Ok(true)
        })?;
        if commands.iter().any(Vec::is_empty) {
            return Err(error(at, "missing value for command"));
        }
        for (number, command) in commands.iter().enumerate() {
            let calls = matches!(command.first(), Some(Operand::Function(_)));
            if !calls && (command.len() > 1 || number > 0) {
                return Err(error(at, "only a function can be given arguments"));
            }
        }
        Ok((commands, closed))
    }

    fn function(&self, name: String, at: (usize, usize)) -> Result<Operand, Error> {
        let is_body = self.kind == Kind::Body && BODY_FUNCTIONS.contains(&name.as_str());
        if is_body || FUNCTIONS.contains(&name.as_str()) {
            return Ok(Operand::Function(name));
        }
        Err(error(
            at,
            match self.kind {
                // It may be a piece of a secret.
                Kind::Body => "this function is not defined".to_owned(),
                Kind::Field => {
                    let shown: String = name.chars().take(40).collect();
                    format!("function {shown:?} not defined")
                }
            },
        ))
    }
}

/// Calls `each` with every token and those after it, until it says stop.
fn for_each(
    tokens: &mut std::vec::IntoIter<Token>,
    mut each: impl FnMut(Token, &mut std::vec::IntoIter<Token>) -> Result<bool, Error>,
) -> Result<(), Error> {
    while let Some(token) = tokens.next() {
        if !each(token, tokens)? {
            break;
        }
    }
    Ok(())
}

fn nothing_more(ending: &Ending) -> Result<(), Error> {
    if ending.rest.is_empty() {
        Ok(())
    } else {
        Err(error(ending.at, format!("unexpected text after {}", ending.word)))
    }
}
