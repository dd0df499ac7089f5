//! What the command line asks for.
//!
//! Owns the words. Runs nothing.

use crate::table::Scenario;

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// How often each scenario runs.
    pub(crate) rounds: u32,
    /// By name; none: all.
    pub(crate) chosen: Vec<String>,
    /// Those that need what is not there by default.
    pub(crate) optional: bool,
    /// Targets of time count too.
    pub(crate) strict: bool,
}

impl Arguments {
    pub(crate) fn wants(&self, scenario: &Scenario) -> bool {
        let named = |name: &String| name.eq_ignore_ascii_case(scenario.name);
        match self.chosen.is_empty() {
            true => self.optional || !scenario.optional,
            false => self.chosen.iter().any(named),
        }
    }
}

pub(crate) fn read(
    mut words: impl Iterator<Item = String>,
    known: &[Scenario],
) -> Result<Arguments, String> {
    let mut arguments = Arguments { rounds: 1, ..Arguments::default() };
    while let Some(word) = words.next() {
        match &*word {
            "--optional" => arguments.optional = true,
            "--strict" => arguments.strict = true,
            "--rounds" => {
                let number = words.next().unwrap_or_default();
                let rounds = number.parse().ok().filter(|rounds| *rounds > 0);
                arguments.rounds = rounds
                    .ok_or_else(|| format!("--rounds = {number:?}: must be a number above 0"))?;
            }
            name if known.iter().any(|it| it.name.eq_ignore_ascii_case(name)) => {
                arguments.chosen.push(word);
            }
            _ => {
                let names: Vec<_> = known.iter().map(|scenario| scenario.name).collect();
                let names = names.join(", ");
                return Err(format!(
                    "{word:?} is not one of {names}, --rounds, --optional, --strict"
                ));
            }
        }
    }
    Ok(arguments)
}
