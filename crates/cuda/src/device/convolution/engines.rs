//! cuDNN's engines for a graph: those that its heuristics propose, which are acceptable, and how to rebuild one.

use std::rc::Rc;

use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnBackendHeurMode_t, cudnnBackendKnobType_t,
    cudnnBackendNumericalNote_t as Note, cudnnHandle_t,
};

use super::backend::Descriptor;
use super::operation::{self, Operation};
use super::{Key, Operands};
use crate::{ElementType, Result};

/// The most proposals to ask for: more than are ever tried.
const PROPOSALS: usize = 128;
/// The most that an engine can have.
const KNOBS: usize = cudnnBackendKnobType_t::CUDNN_KNOB_TYPE_COUNTS as usize;
const NOTES: usize = Note::CUDNN_NUMERICAL_NOTE_TYPE_COUNT as usize;

/// An engine, by its number in cuDNN, with values for its knobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    pub engine: i64,
    /// Knobs, by their numbers in cuDNN, and their values.
    pub knobs: Vec<(u32, i64)>,
}

/// An engine for a graph, ready to be started.
pub(super) struct Plan {
    // Fields are dropped in this order: descriptors go before those that they refer to.
    plan: Descriptor,
    _config: Descriptor,
    _operation: Rc<Operation>,
    pub recipe: Recipe,
    /// The size of the workspace in bytes.
    pub workspace: usize,
}

/// The engine configurations that cuDNN proposes, most promising first.
pub(super) fn proposals(operation: &Operation, mode: cudnnBackendHeurMode_t) -> Result<Vec<Descriptor>> {
    let heuristics = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
    heuristics.descriptors(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[&operation.graph])?;
    heuristics.constant(Name::CUDNN_ATTR_ENGINEHEUR_MODE, Type::CUDNN_TYPE_HEUR_MODE, mode as u32)?;
    heuristics.finalize()?;
    let config = Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
    heuristics.parts(Name::CUDNN_ATTR_ENGINEHEUR_RESULTS, config, PROPOSALS)
}

/// The recipe of a proposal, if it is acceptable for a key.
pub(super) fn serving(config: &Descriptor, key: &Key) -> Result<Option<Recipe>> {
    let engine = config.part(Name::CUDNN_ATTR_ENGINECFG_ENGINE, Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
    let notes =
        engine.constants(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Type::CUDNN_TYPE_NUMERICAL_NOTE, NOTES)?;
    if !may_serve(&notes, key) {
        return Ok(None);
    }
    let choices = config.parts(
        Name::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
        Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
        KNOBS,
    )?;
    let knob = |choice: &Descriptor| {
        let of = choice.constants(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, Type::CUDNN_TYPE_KNOB_TYPE, 1)?;
        let value = choice.integer(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE)?;
        Ok((of.first().copied().unwrap_or(0), value))
    };
    Ok(Some(Recipe {
        engine: engine.integer(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX)?,
        knobs: choices.iter().map(knob).collect::<Result<_>>()?,
    }))
}

/// Whether an engine with these numerical notes meets a key's requirements: sums in f32, no input rounded below its
/// type (except f32 to tf32 where that is allowed), and the same bits every time if the mode is deterministic.
fn may_serve(notes: &[u32], key: &Key) -> bool {
    let has = |note: Note| notes.contains(&(note as u32));
    let exact = key.element == ElementType::F32 && !key.mode.tf32;
    let imprecise = [
        Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
        Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
        Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4,
        Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6,
        Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13,
    ];
    let refused = imprecise.into_iter().any(has)
        || (exact && has(Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE))
        || (key.mode.deterministic && has(Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC));
    !refused
}

impl Plan {
    /// The plan of a proposal.
    pub fn new(
        handle: cudnnHandle_t,
        operation: &Rc<Operation>,
        config: Descriptor,
        recipe: Recipe,
    ) -> Result<Plan> {
        let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
        plan.handle(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, handle)?;
        plan.descriptors(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &[&config])?;
        plan.finalize()?;
        let workspace = plan.integer(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)?;
        let workspace = usize::try_from(workspace).unwrap_or(0);
        Ok(Plan { plan, _config: config, _operation: operation.clone(), recipe, workspace })
    }

    /// The plan of an engine that was chosen before.
    pub fn again(handle: cudnnHandle_t, operation: &Rc<Operation>, recipe: Recipe) -> Result<Plan> {
        let engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
        engine.descriptors(Name::CUDNN_ATTR_ENGINE_OPERATION_GRAPH, &[&operation.graph])?;
        engine.integers(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, &[recipe.engine])?;
        engine.finalize()?;
        let mut choices = Vec::new();
        for (of, value) in &recipe.knobs {
            let choice = Descriptor::new(Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR)?;
            choice.constant(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, Type::CUDNN_TYPE_KNOB_TYPE, *of)?;
            choice.integers(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, &[*value])?;
            choice.finalize()?;
            choices.push(choice);
        }
        let config = Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)?;
        config.descriptors(Name::CUDNN_ATTR_ENGINECFG_ENGINE, &[&engine])?;
        if !choices.is_empty() {
            let choices: Vec<&Descriptor> = choices.iter().collect();
            config.descriptors(Name::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, &choices)?;
        }
        config.finalize()?;
        Plan::new(handle, operation, config, recipe)
    }

    /// Starts the engine.
    ///
    /// # Safety
    /// The handle must be alive. Each operand must be memory of the size that the key's geometry and types give,
    /// borrowed as the pass uses it, and `room` must be memory of [`Plan::workspace`] bytes.
    pub unsafe fn run(&self, handle: cudnnHandle_t, key: &Key, operands: Operands, room: u64) -> Result<()> {
        let pack = operation::pack(key, operands, room)?;
        // SAFETY: the caller's promise.
        unsafe { self.plan.execute(handle, &pack) }
    }
}
