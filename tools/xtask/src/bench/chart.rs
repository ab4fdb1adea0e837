// SPDX-License-Identifier: GPL-2.0-only
//! Charts, as SVG.

use std::path::Path;

use anyhow::{anyhow, Context as _, Result};
use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, Circle, DrawingArea, IntoDrawingArea as _, IntoLogRange as _, LineSeries,
        PathElement, RGBColor, SVGBackend, SeriesLabelPosition, BLACK, WHITE,
    },
};

use super::{
    results::{Results, RINGS},
    target::{copy, PLACES},
};

/// Told apart by those who see fewer colours, too.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(120, 120, 120),
];

/// A name and its points.
type Line = (&'static str, Vec<(f64, f64)>);

/// One picture.
struct Panel {
    title: String,
    across: &'static str,
    up: &'static str,
    lines: Vec<Line>,
    /// Whether what stands at the side grows as fast as what stands below.
    log: bool,
}

/// Draws what these results have, each into a file of the directory; returns the names.
pub(super) fn draw(results: &Results, dir: &Path) -> Result<Vec<&'static str>> {
    let mut files = Vec::new();
    for (name, panels) in [
        ("group-size.svg", sizes(results)),
        ("groups-in-flight.svg", flight(results)),
        ("copies.svg", copies(results)),
    ] {
        let panels: Vec<_> = panels
            .into_iter()
            .filter(|panel| panel.lines.iter().any(|(_, points)| points.len() > 1))
            .collect();
        if panels.is_empty() {
            continue;
        }
        let path = dir.join(name);
        picture(&path, &panels).with_context(|| format!("cannot draw {}", path.display()))?;
        files.push(name);
    }
    Ok(files)
}

fn powers(most: u32) -> impl Iterator<Item = u32> {
    (0..=most).map(|power| 1 << power)
}

fn sizes(results: &Results) -> Vec<Panel> {
    let line = |way: &str, ring: &str| {
        powers(12)
            .filter_map(|size| {
                let cost = results.patched.cost(&format!("size/{way}"), ring, size)?;
                Some((f64::from(size), cost))
            })
            .collect()
    };
    RINGS[..2]
        .iter()
        .map(|ring| Panel {
            title: format!("A NOP, {ring}"),
            across: "members of the group",
            up: "instructions of a request",
            lines: vec![
                ("group", line("group", ring)),
                ("chain", line("linked", ring)),
                ("plain", line("plain", ring)),
            ],
            log: false,
        })
        .collect()
}

fn flight(results: &Results) -> Vec<Panel> {
    let ring = RINGS[0];
    let line = |what: &str, whole: bool| {
        powers(10)
            .filter_map(|count| {
                let sample = results.patched.sample(what, ring, count)?;
                let cost = if whole {
                    sample.instructions
                } else {
                    sample.per_request()
                };
                Some((f64::from(count), cost))
            })
            .collect()
    };
    vec![
        Panel {
            title: "Requests meanwhile".to_owned(),
            across: "groups in flight",
            up: "instructions of a request",
            lines: vec![
                ("of a group of 1+1", line("together/group", false)),
                ("plain NOP", line("beside/group", false)),
            ],
            log: false,
        },
        Panel {
            title: "Start and cancel".to_owned(),
            across: "groups, or reads, in flight",
            up: "instructions",
            lines: vec![
                ("a group", line("cancel/group", true)),
                ("a read", line("cancel/plain", true)),
            ],
            log: true,
        },
    ]
}

fn copies(results: &Results) -> Vec<Panel> {
    let ring = RINGS[0];
    PLACES
        .iter()
        .map(|place| {
            let line = |way: &str, ring: &str| {
                powers(4)
                    .filter_map(|count| {
                        let what = copy(place, "4K", way);
                        let sample = results.patched.sample(&what, ring, count)?;
                        Some((f64::from(count), sample.instructions / f64::from(count)))
                    })
                    .collect()
            };
            Panel {
                title: format!("4K on {place}"),
                across: "copies",
                up: "instructions of a copy",
                lines: vec![
                    ("group", line("group", ring)),
                    ("chain", line("linked", ring)),
                    ("two submissions", line("two", ring)),
                    ("read and write", line("loop", "none")),
                ],
                log: false,
            }
        })
        .collect()
}

fn picture(path: &Path, panels: &[Panel]) -> Result<()> {
    let size = (420 * panels.len() as u32, 340);
    let root = SVGBackend::new(path, size).into_drawing_area();
    // The errors of a backend borrow it.
    let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    for (area, panel) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        draw_panel(area, panel).map_err(|error| failed(&error))?;
    }
    root.present().map_err(|error| failed(&error))
}

fn draw_panel(area: &DrawingArea<SVGBackend<'_>, Shift>, panel: &Panel) -> Result<()> {
    let Panel {
        title,
        across,
        up,
        lines,
        log,
    } = panel;
    let points = || lines.iter().flat_map(|(_, points)| points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(1.0, f64::max);
    let least = points().map(|point| point.1).fold(f64::MAX, f64::min);
    let (right, top) = (most(|point| point.0), most(|point| point.1) * 1.1);
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(64);
    // The two kinds of axes are two types.
    macro_rules! draw {
        ($range:expr) => {{
            let mut chart = builder.build_cartesian_2d((1.0..right).log_scale(), $range)?;
            chart
                .configure_mesh()
                .x_desc(*across)
                .y_desc(*up)
                .x_label_formatter(&|value| format!("{value:.0}"))
                .y_label_formatter(&|value| format!("{value:.0}"))
                .disable_x_mesh()
                .max_light_lines(0)
                .draw()?;
            for ((name, points), colour) in lines.iter().zip(COLOURS) {
                chart
                    .draw_series(LineSeries::new(points.iter().copied(), &colour))?
                    .label(*name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour));
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 2, &colour)))?;
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE)
                .border_style(BLACK)
                .draw()?;
        }};
    }
    if *log {
        draw!((least * 0.8..top).log_scale());
    } else {
        draw!(0.0..top);
    }
    Ok(())
}
