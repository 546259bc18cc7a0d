//! The search for the fastest route.

use std::rc::Rc;
use std::time::{Duration, Instant};

use cudarc::cudnn::sys::cudnnBackendHeurMode_t as Mode;

use super::backend::Descriptor;
use super::engines::{self, Plan, Recipe};
use super::legacy::{self, Parts};
use super::operation::Operation;
use super::route::{Memo, Route};
use super::{Convolutions, Device, Key, NAME, Operands, pointwise};
use crate::device::timing;
use crate::element::typed;
use crate::launcher::Launcher;
use crate::ops::elementwise;
use crate::{CudaError, ElementType, Memory, Result, Slice, SliceMut};

/// The most workspace of a route, in bytes.
const WORKSPACE: usize = 1 << 30;
/// Workspaces for trying the algorithms of the older interface: the first that can be allocated is used.
const WORKSPACES: [usize; 3] = [WORKSPACE, 256 << 20, 32 << 20];
/// The most engines that are timed: from the first list of proposals, and from the first two together, so that the
/// second list can add some.
const OF_FIRST: usize = 8;
const OF_BOTH: usize = 12;
/// After this time no further engine is tried, once `SOME` engines are timed. It counts from when the first engine has
/// run: until then cuDNN loads most of its code, which may take longer than all engines.
const PATIENCE: Duration = Duration::from_secs(1);
const SOME: usize = 3;
/// cuDNN lists its proposals by expected speed: after `SLOW` in a row that take `FAR` times as long as the best, the
/// rest of a list is skipped. One run of a slow engine can take longer than all others together.
const SLOW: usize = 2;
const FAR: f64 = 3.0;
/// How many routes are remembered for a sample: for larger batches these are timed again.
const FINALISTS: usize = 3;
/// The factor by which times of routes whose gradient is not rounded count, to prefer those.
const UNROUNDED: f64 = 0.95;

/// Routes with the seconds that each takes.
pub(super) type Timed = Vec<(f64, Route)>;

impl Convolutions {
    /// The route for a key: remembered, or found by timing several on the operands. Timing overwrites the result,
    /// unless it is to be added.
    pub(super) fn route(&mut self, device: &Device, key: &Key, operands: Operands) -> Result<Rc<Route>> {
        if let Some(route) = self.routes.get(key) {
            return Ok(route.clone());
        }
        device.refuse_in_capture("choosing how to compute a convolution")?;
        let route = match self.known(key) {
            Some(route) => route,
            None => device.counted_search(|| self.searched(device, key, operands))?,
        };
        let route = Rc::new(route);
        self.routes.insert(*key, route.clone());
        Ok(route)
    }

    /// Searches for a route. A route that another process has stored meanwhile wins: all will use it on the next start.
    fn searched(&mut self, device: &Device, key: &Key, operands: Operands) -> Result<Route> {
        self.remembered.forget(&name(key));
        // A search may be part of another.
        let before = std::mem::take(&mut self.starved);
        let chosen = self.chosen(device, key, operands);
        self.starved |= before;
        let chosen = chosen?;
        Ok(self.known(key).unwrap_or(chosen))
    }

    /// The route for a key if no search is needed.
    pub(super) fn known(&self, key: &Key) -> Option<Route> {
        if key.in_two() {
            return Some(Route::InTwo);
        }
        self.memos(key).into_iter().find_map(|memo| self.recalled(key, memo))
    }

    /// The fastest route among those that are fastest on a sample of the batch.
    fn chosen(&mut self, device: &Device, key: &Key, operands: Operands) -> Result<Route> {
        let mut sample = key.sample(&self.limits);
        let fastest = |found: (Route, Vec<Memo>)| found.0;
        if sample == *key {
            match (self.found(device, key, operands), fewer(key)) {
                (Err(CudaError::OutOfMemory { .. }), Some(fewer)) => sample = fewer,
                (found, _) => return found.map(fastest),
            }
        }
        let finalists = self.finalists(device, sample, operands);
        // Where there is no memory to put a result aside that is to be added, nothing is timed on the whole batch: the
        // order of the sample holds. That choice depends on how much memory is free, so it is not remembered.
        let aside = self.aside(device, key);
        let (mut best, mut roomy) = (None::<(f64, Route)>, None);
        for memo in finalists {
            let Some(route) = self.recalled(key, memo) else { continue };
            let Ok(aside) = &aside else {
                if has_room(device, &route) {
                    return Ok(route);
                }
                roomy.get_or_insert(route);
                continue;
            };
            let operands = into_aside(key, operands, aside);
            // Run these once before: the choices that they make within themselves would be timed as well.
            let chooses = matches!(route, Route::Product | Route::Strided | Route::InTwo);
            if chooses && self.run(device, key, &route, operands).is_err() {
                continue;
            }
            let seconds = best.as_ref().map_or(f64::INFINITY, |(seconds, _)| *seconds);
            if let Ok(timed) = self.time(device, key, route, operands, seconds)
                && timed.0 < seconds
            {
                best = Some(timed);
            }
        }
        match (best, roomy) {
            (Some((_, route)), _) => {
                self.remember(key, &[route.memo()]);
                Ok(route)
            }
            (None, Some(route)) => Ok(route),
            // No route for the sample works for the whole batch.
            (None, None) => self.found(device, key, operands).map(fastest),
        }
    }

    /// The routes that are fastest on a sample, or on fewer images where there is no memory to search on it; none where
    /// a search fails.
    fn finalists(&mut self, device: &Device, mut sample: Key, operands: Operands) -> Vec<Memo> {
        loop {
            let known = self.memos(&sample);
            if !known.is_empty() {
                return known;
            }
            sample = match (self.found(device, &sample, operands), fewer(&sample)) {
                (Ok((_, memos)), _) => return memos,
                (Err(CudaError::OutOfMemory { .. }), Some(fewer)) => fewer,
                (Err(_), _) => return Vec::new(),
            };
        }
    }

    /// The routes on disk for a key, fastest first.
    fn memos(&self, key: &Key) -> Vec<Memo> {
        let stored = self.remembered.get(&name(key));
        let text = stored.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        text.lines().take(FINALISTS).map_while(|line| Memo::read(key.pass, line)).collect()
    }

    /// Stores routes, unless some could not be timed: what memory is free now need not be what is free the next time.
    fn remember(&self, key: &Key, memos: &[Memo]) {
        if self.starved {
            return;
        }
        let lines: Vec<String> = memos.iter().map(Memo::text).collect();
        self.remembered.put(&name(key), lines.join("\n").as_bytes());
    }

    /// A remembered route, if cuDNN still has it: it may be from another driver.
    fn recalled(&self, key: &Key, memo: Memo) -> Option<Route> {
        match memo {
            Memo::Engine { recipe } => {
                let operation = Rc::new(Operation::new(self.handle, key).ok()?);
                let plan = match self.proposed(key, &operation, &recipe) {
                    Some(plan) => plan,
                    None => Plan::again(self.handle, &operation, recipe).ok()?,
                };
                (plan.workspace <= WORKSPACE).then_some(Route::Engine(plan))
            }
            Memo::Algorithm { number, math } => {
                let parts = Parts::new(&key.geometry, key.element, key.mode.tf32).ok()?;
                let algorithm = key
                    .is_plain()
                    .then(|| legacy::again(self.handle, key.pass, &parts, number, math))
                    .flatten()?;
                (algorithm.workspace <= WORKSPACE).then_some(Route::Algorithm(algorithm))
            }
            Memo::Product => pointwise::serves(key).then_some(Route::Product),
            Memo::Strided => key.together().map(|_| Route::Strided),
            Memo::InTwo => key.first().map(|_| Route::InTwo),
        }
    }

    /// The plan of a remembered engine, if cuDNN still proposes it. This comes first because not every configuration
    /// that cuDNN proposes can be rebuilt from its recipe.
    fn proposed(&self, key: &Key, operation: &Rc<Operation>, recipe: &Recipe) -> Option<Plan> {
        [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_B, Mode::CUDNN_HEUR_MODE_FALLBACK]
            .into_iter()
            .find_map(|mode| {
                let same = |config: &Descriptor| {
                    engines::serving(config, key).is_ok_and(|found| found.as_ref() == Some(recipe))
                };
                let config = engines::proposals(operation, mode).ok()?.into_iter().find(same)?;
                Plan::new(self.handle, operation, config, recipe.clone()).ok()
            })
    }

    /// Finds the fastest route, and the memos of the fastest few, which are stored.
    fn found(&mut self, device: &Device, key: &Key, operands: Operands) -> Result<(Route, Vec<Memo>)> {
        let aside = self.aside(device, key)?;
        let operands = into_aside(key, operands, &aside);
        let timed = match self.timed(device, key, operands) {
            // If the older interface fails as well, the first error is the more helpful one.
            Err(error) if key.is_plain() => match self.algorithm(device, key, operands) {
                Ok(Some(algorithm)) => vec![(0.0, Route::Algorithm(algorithm))],
                _ => return Err(error),
            },
            timed => timed?,
        };
        let memos: Vec<Memo> = timed.iter().take(FINALISTS).map(|(_, route)| route.memo()).collect();
        self.remember(key, &memos);
        let fastest = timed.into_iter().next();
        fastest.map(|(_, route)| (route, memos)).ok_or_else(|| none(key, "it proposes none"))
    }

    /// Memory for results during the search if the key adds: the values to be added to must survive the search.
    fn aside(&self, device: &Device, key: &Key) -> Result<Option<Box<dyn Memory>>> {
        key.adds.then(|| device.scratch(key.len() * key.output.size())).transpose()
    }

    /// Times all routes for a key, fastest first. At least one is returned.
    pub(super) fn timed(&mut self, device: &Device, key: &Key, operands: Operands) -> Result<Timed> {
        // Two stages always work, so time them first: engines that are far slower are then given up early.
        let in_two = match key.first().map(|_| self.time(device, key, Route::InTwo, operands, f64::INFINITY))
        {
            // Engines may still work: they need no memory for a first stage.
            Some(Err(CudaError::OutOfMemory { .. })) if !key.sums_apart() => None,
            in_two => in_two.transpose()?,
        };
        let best = in_two.as_ref().map_or(f64::INFINITY, |(seconds, _)| *seconds);
        let at_once = match key.sums_apart() {
            true => Ok(Timed::new()),
            false => self.at_once(device, key, operands, best),
        };
        let Some((seconds, route)) = in_two else { return at_once };
        let mut timed = at_once.unwrap_or_default();
        let unrounded = key.output != key.element;
        let worth = if unrounded { UNROUNDED } else { 1.0 };
        let place = timed.partition_point(|(other, _)| other * worth <= seconds);
        timed.insert(place, (seconds, route));
        Ok(timed)
    }

    /// Times the routes of one stage, fastest first: engines, and the matrix product for 1 x 1 convolutions, strided or
    /// not. At least one is returned. Another route is known to take `best` seconds.
    fn at_once(&mut self, device: &Device, key: &Key, operands: Operands, best: f64) -> Result<Timed> {
        let timed = self.engines(device, key, operands, best);
        let product = match (pointwise::serves(key), key.together()) {
            (true, _) => Route::Product,
            (false, Some(_)) => Route::Strided,
            (false, None) => return timed,
        };
        match self.time(device, key, product, operands, f64::INFINITY) {
            Ok(product) => {
                let mut timed = timed.unwrap_or_default();
                timed.insert(timed.partition_point(|(seconds, _)| *seconds <= product.0), product);
                Ok(timed)
            }
            // If the product does not work, engines may.
            Err(_) => timed,
        }
    }

    /// Times engines for a key, fastest first. At least one is returned. Another route is known to take `other`
    /// seconds.
    fn engines(&mut self, device: &Device, key: &Key, operands: Operands, other: f64) -> Result<Timed> {
        let mut since = None;
        let operation = Rc::new(Operation::new(self.handle, key)?);
        let (mut timed, mut known) = (Timed::new(), Vec::new());
        let mut refused = None;
        for (mode, most) in [
            (Mode::CUDNN_HEUR_MODE_A, OF_FIRST),
            (Mode::CUDNN_HEUR_MODE_B, OF_BOTH),
            (Mode::CUDNN_HEUR_MODE_FALLBACK, OF_FIRST),
        ] {
            // Fallback engines always work but are slow.
            if mode == Mode::CUDNN_HEUR_MODE_FALLBACK && !timed.is_empty() {
                break;
            }
            let proposals = match engines::proposals(&operation, mode) {
                Ok(proposals) => proposals,
                Err(error) => {
                    refused.get_or_insert(error);
                    continue;
                }
            };
            let mut slow = 0;
            for config in proposals {
                let some = timed.len() >= SOME || (!timed.is_empty() && other.is_finite());
                let enough =
                    some && (slow >= SLOW || since.is_some_and(|since: Instant| since.elapsed() > PATIENCE));
                if timed.len() >= most || enough {
                    break;
                }
                let best = timed.iter().map(|(seconds, _)| *seconds).fold(other, f64::min);
                match self.engine(device, key, operands, &operation, config, &mut known, best) {
                    Ok(Some(found)) => {
                        slow = if found.0 > FAR * best { slow + 1 } else { 0 };
                        timed.push(found);
                        since.get_or_insert_with(Instant::now);
                    }
                    Ok(None) => {}
                    Err(error) => refused = Some(timing::survived(device, refused, error)?),
                }
            }
        }
        if timed.is_empty() {
            return Err(refused.unwrap_or_else(|| none(key, "it proposes no engine that is acceptable")));
        }
        timed.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(timed)
    }

    /// Times a proposal, unless it is not acceptable or already known.
    fn engine(
        &mut self,
        device: &Device,
        key: &Key,
        operands: Operands,
        operation: &Rc<Operation>,
        config: Descriptor,
        known: &mut Vec<Recipe>,
        best: f64,
    ) -> Result<Option<(f64, Route)>> {
        let Some(recipe) = engines::serving(&config, key)? else { return Ok(None) };
        if known.contains(&recipe) {
            return Ok(None);
        }
        known.push(recipe.clone());
        let plan = Plan::new(self.handle, operation, config, recipe)?;
        if plan.workspace > WORKSPACE {
            return Err(none(key, "an engine needs too large a workspace"));
        }
        let route = Route::Engine(plan);
        if key.adds && !self.adds(device, key, &route, operands)? {
            return Err(none(key, "an engine overwrites what it should add to"));
        }
        self.time(device, key, route, operands, best).map(Some)
    }

    /// Checks that a route adds to the values that are there: an engine that took their factor for 0 would silently
    /// corrupt gradients.
    fn adds(&mut self, device: &Device, key: &Key, route: &Route, operands: Operands) -> Result<bool> {
        let at = operands.result(key.pass);
        // SAFETY: the result has the key's length, and is borrowed exclusively.
        unsafe { fill(device, at, key.len(), key.output, f32::NAN) }?;
        self.run(device, key, route, operands)?;
        // SAFETY: the same.
        let first = unsafe { value(device, at, key.output) }?;
        Ok(first.is_nan())
    }

    pub(super) fn time(
        &mut self,
        device: &Device,
        key: &Key,
        route: Route,
        operands: Operands,
        best: f64,
    ) -> Result<(f64, Route)> {
        let seconds = timing::seconds(device, best, &mut || self.run(device, key, &route, operands))?;
        Ok((seconds, route))
    }

    /// The fastest algorithm of the older interface for a key that it computes in one stage.
    pub(super) fn algorithm(
        &mut self,
        device: &Device,
        key: &Key,
        operands: Operands,
    ) -> Result<Option<legacy::Algorithm>> {
        let parts = Parts::new(&key.geometry, key.element, key.mode.tf32)?;
        let free = |size: &usize| device.scratch(*size).ok().map(|memory| (memory, *size));
        let room = WORKSPACES.iter().find_map(free);
        let (address, size) = room.as_ref().map_or((0, 0), |(memory, size)| (memory.address(), *size));
        // SAFETY: operands have the key's lengths; the workspace has `size` bytes.
        unsafe { legacy::fastest(self.handle, key, &parts, operands, address, size) }
    }
}

/// The cache key under which routes are remembered.
fn name(key: &Key) -> String {
    // The suffix invalidates entries from versions that did not know the strided route.
    let ways = key.together().map_or("", |_| " or strided");
    format!("{key:?}{ways}")
}

/// Half of the images of a key that adds: a search puts less aside for them. None if there is only one.
fn fewer(key: &Key) -> Option<Key> {
    let images = key.geometry.batch / 2;
    (key.adds && images > 0).then(|| key.of_images(images))
}

/// Whether there is memory for what a route needs beside its operands. Those of two stages are taken to have none: they
/// need as much as there was not for the search.
fn has_room(device: &Device, route: &Route) -> bool {
    let workspace = match route {
        Route::Engine(plan) => plan.workspace,
        Route::Algorithm(algorithm) => algorithm.workspace,
        Route::Product => 0,
        Route::Strided | Route::InTwo => return false,
    };
    workspace == 0 || device.scratch(workspace).is_ok()
}

fn into_aside(key: &Key, operands: Operands, aside: &Option<Box<dyn Memory>>) -> Operands {
    match aside {
        Some(aside) => operands.into(key.pass, aside.address()),
        None => operands,
    }
}

fn none(key: &Key, reason: &str) -> CudaError {
    CudaError::Call { what: NAME, reason: format!("cuDNN has no engine for {key:?}: {reason}") }
}

/// Sets `len` values of a type, from an address on.
///
/// # Safety
/// The caller must own that many values there.
unsafe fn fill(device: &Device, at: u64, len: usize, of: ElementType, value: f32) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { typed!(of, E => elementwise::fill::<E>(device, SliceMut::from_raw(at, len), value)) }
}

/// Reads the value of a type at an address.
///
/// # Safety
/// The caller must own a value there.
unsafe fn value(device: &Device, at: u64, of: ElementType) -> Result<f32> {
    let mut wide = device.buffer::<f32>(1)?;
    // SAFETY: the caller's promise.
    unsafe { typed!(of, E => elementwise::widen::<E>(device, Slice::from_raw(at, 1), wide.write())) }?;
    Ok(device.values(wide.read())?[0])
}
