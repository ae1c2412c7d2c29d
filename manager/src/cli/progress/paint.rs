//! Frames as text: bars that are drawn over each other on a terminal, plain lines elsewhere.

use super::super::format::human::ellipsis;
use super::super::limits;
use super::state::{Frame, Slot, SlotStatus, TaskState};

/// Characters inside a full bar.
const BAR: usize = 50;

/// Draws one frame after the other.
#[derive(Debug, Default)]
pub(crate) struct Painter {
    /// Width of the terminal; `None` for a file or a pipe.
    columns: Option<usize>,
    shown: Vec<String>,
}

impl Painter {
    /// For a terminal of that width, or for something that is no terminal.
    pub(crate) fn new(columns: Option<usize>) -> Painter {
        Painter { columns, shown: Vec::new() }
    }

    /// The bytes that show `frame` after everything painted before.
    ///
    /// A terminal gets the lines redrawn in place; elsewhere only changed lines are added.
    pub(crate) fn paint(&mut self, frame: &Frame) -> String {
        self.lines(lines(frame, self.columns.is_some()))
    }

    /// As `paint`, with lines from elsewhere.
    pub(crate) fn lines(&mut self, lines: Vec<String>) -> String {
        let mut text = String::new();
        match self.columns {
            Some(columns) => {
                if !self.shown.is_empty() {
                    text = format!("\x1b[{}A", self.shown.len());
                }
                // The old frame may be taller: its other lines are emptied.
                let height = lines.len().max(self.shown.len());
                let mut now = lines;
                now.resize(height, String::new());
                for line in &now {
                    text.push_str(&format!("\r\x1b[2K{}\n", ellipsis(line, columns)));
                }
                self.shown = now;
            }
            None => {
                for line in &lines {
                    if !self.shown.contains(line) {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
                self.shown = lines;
            }
        }
        text
    }
}

/// The lines of a frame.
pub(super) fn lines(frame: &Frame, bars: bool) -> Vec<String> {
    let mut lines: Vec<String> = frame.rollback.iter().map(|text| format!("rollback: {text}")).collect();
    lines.extend(frame.overall.iter().cloned());
    lines.extend(frame.slots.iter().map(|slot| slot_line(slot, bars.then_some(frame.goal))));
    lines.extend(frame.verify.clone());
    lines
}

/// `goal` is the state that fills a bar; without one there are no bars.
fn slot_line(slot: &Slot, goal: Option<TaskState>) -> String {
    let text = match &slot.status {
        SlotStatus::Unknown => String::new(),
        SlotStatus::Trouble(text) => ellipsis(text, limits::PROGRESS_TEXT_MAX),
        SlotStatus::Step(state) => match goal {
            Some(goal) => format!("{:<9} {}", state.name(), bar(*state, goal)),
            None => state.name().to_owned(),
        },
    };
    format!("{}: {text}", slot.label)
}

fn bar(state: TaskState, goal: TaskState) -> String {
    meter(state as usize + 1, goal as usize + 1)
}

/// A bar of which `done` of `all` parts are filled.
pub(super) fn meter(done: usize, all: usize) -> String {
    let filled = BAR * done.min(all) / all.max(1);
    let head = if filled < BAR { ">" } else { "" };
    format!("[{}{head:<rest$}]", "=".repeat(filled), rest = BAR - filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(state: TaskState) -> Frame {
        Frame {
            overall: vec!["overall progress: 0 out of 1 tasks".to_owned()],
            slots: vec![Slot { label: "1/1".to_owned(), status: SlotStatus::Step(state) }],
            ..Frame::default()
        }
    }

    #[test]
    fn a_pipe_gets_changes_only() {
        let mut painter = Painter::new(None);
        assert_eq!(painter.paint(&frame(TaskState::New)), "overall progress: 0 out of 1 tasks\n1/1: new\n");
        assert_eq!(painter.paint(&frame(TaskState::New)), "");
        assert_eq!(painter.paint(&frame(TaskState::Running)), "1/1: running\n");
    }

    #[test]
    fn a_terminal_is_redrawn_and_never_wrapped() {
        let mut painter = Painter::new(Some(20));
        let first = painter.paint(&frame(TaskState::New));
        assert_eq!(first, "\r\x1b[2Koverall progress: 0…\n\r\x1b[2K1/1: new       [===…\n");
        let second = painter.paint(&Frame { overall: vec!["done".to_owned()], ..Frame::default() });
        assert_eq!(second, "\x1b[2A\r\x1b[2Kdone\n\r\x1b[2K\n");
    }

    #[test]
    fn bars_grow_to_the_end() {
        assert_eq!(bar(TaskState::Running, TaskState::Running), format!("[{}]", "=".repeat(50)));
        assert_eq!(bar(TaskState::New, TaskState::Running), format!("[=====>{}]", " ".repeat(44)));
        assert_eq!(bar(TaskState::Starting, TaskState::Running).len(), 52);
        assert_eq!(bar(TaskState::Running, TaskState::Complete), format!("[{}>{}]", "=".repeat(45), " ".repeat(4)));
    }
}
