"""What a chapter writes out and what utils/ keeps behave alike: both pass the chapter's
own check, so neither can drift from the other."""

from importlib import import_module

import pytest

# exercise -> the name that later chapters import it by, one line a chapter
EARNED = {
    "descent": {
        "utils.built.descent": "predict mse numeric_gradient mse_gradient gradient_step "
        "stable_rate standardise minibatches sgd",
    },
    "neurons": {
        "utils.built.neurons": "linear relu mlp_forward sigmoid slope softmax cross_entropy "
        "binary_cross_entropy cross_entropy_gradient softmax_step softmax_regression "
        "accuracy",
    },
    "backprop": {
        "utils.built.rules": "matmul_backward unbroadcast sum_backward",
        "utils.built.autograd": "history",
        "utils.built.gradcheck": "gradcheck",
        "utils.built.nn": "softmax_cross_entropy linear_relu_backward sgd_step",
    },
    "pytorch": {
        "utils.built.rows": "Rows epoch_order",
        "utils.built.train": "train_step evaluate pick_device",
        "utils.built.checkpoint": "save_checkpoint",
    },
    "sequences": {
        "utils.built.seq": "blend streams sharpen",
        "utils.built.recurrent": "embed_gradient rnn bptt reach lstm_cell remember clip "
        "linear_scan",
    },
    "graphs": {
        "utils.built.graph": "adjacency normalise gcn masked_cross_entropy "
        "label_propagation is_equivariant uses_graph propagate roughness colours pool "
        "edge_softmax",
    },
    "cnn": {
        "utils.built.conv": "cross_correlate patches conv2d conv2d_backward "
        "receptive_field cost batch_norm",
        "utils.built.resnet": "Residual flip_and_shift",
        "utils.data.pictures": "groups",
    },
    "collectives": {
        "utils.built.collectives": "pass_right cut shift broadcast scatter gather "
        "reduce_scatter all_gather ring_all_reduce doubling_all_reduce fit cost choose",
    },
    "hardware": {
        "utils.built.roofline": "rate work_of predicted critical_batch misses break_even "
        "busy pareto",
        "utils.built.systolic": "pulse",
        "utils.built.fixed": "fixed_layer",
    },
    "gpu": {
        "utils.built.gpu": "to_device seconds step_seconds Ready",
        "utils.built.precision": "value_of round_to LossScaler amp_step",
        "utils.built.profiling": "saved_bytes step_bytes step_flops idle_share Work",
    },
    "kernels": {
        "utils.built.kernels": "add_kernel transpose_kernel softmax_kernel total_kernel "
        "matmul_kernel flash_forward flash_keys int4_matmul",
        "utils.built.warps": "sectors bank_conflicts grouped occupancy",
    },
    "faster": {
        "utils.built.fuse": "passes fuse",
        "utils.built.flash": "online_softmax flash_forward flash_backward",
        "utils.built.lean": "accumulate kept Recompute chunked_loss",
    },
    "budget": {
        "utils.built.budget": "parameters forward_flops activation_bytes recompute_flops "
        "kv_bytes chip_hours bill chips_for smallest mfu",
    },
    "data_parallel": {
        "utils.built.data_parallel": "mean_of_shards average_gradients synchronise "
        "shard_order mean_over_ranks parallel_step make_buckets Overlapped accumulate "
        "timeline",
    },
    "model_parallel": {
        "utils.built.tensor_parallel": "Leave split_mlp split_attention split_loss merge "
        "zigzag",
        "utils.built.experts": "dispatch",
        "utils.built.pipeline": "order_1f1b simulate zero_bubble Late",
        "utils.built.planner": "plans",
    },
    "federated": {
        "utils.built.federated": "client_slopes fedavg_round drift scaffold_round",
        "utils.built.secure": "to_ring masked rebuild unmask",
        "utils.built.private": "leak_rows private_gradient epsilon",
    },
    "sharding": {
        "utils.built.sharding": "words smallest_stage flat_views zero1_step clip_shard "
        "Zero2 Gather forgetful Zero3 save_shards",
    },
    "thin_wires": {
        "utils.built.thin": "talk_seconds quantise pack_bits half_hook top_k "
        "ErrorFeedback power_step local_round outer_step exchange_signs two_level_sum",
    },
    "failures": {
        "utils.built.failures": "save_sharded newest pieces ordered_mean run_to_the_end "
        "catch_up interval simulate share_rows",
        "utils.built.pool": "choose",
    },
    "pruning": {
        "utils.built.pruning": "keep_largest global_masks Masked keep_at ticket wanda "
        "two_of_four shrink refit",
        "utils.built.coding": "gaps Decoder",
    },
    "distillation": {
        "utils.built.distill": "soften kd_loss out_of_fold kappa average",
        "utils.built.lora": "low_rank low_rank_for LoRA",
        "utils.built.continual": "forgetting fisher Replay",
    },
    "quantization": {
        "utils.built.quant": "read_bits quantize affine best_scale group_quantize "
        "quantized_matmul Observer compensate fake_quantize codebook choose_bits",
        "utils.built.packed": "pack_int4 unpack_int4",
    },
    "compute_aware": {
        "utils.built.compute": "macs pareto hypervolume cheapest draw_gates expected_macs "
        "harden choose_threshold gate_loss gumbel_pick",
    },
    "deployment": {
        "utils.built.onnx_file": "field onnx_bytes",
        "utils.built.folding": "fold",
        "utils.built.load": "queued",
        "utils.built.served": "collect",
        "utils.built.cutting": "best_cut",
        "utils.built.sealed": "verify",
        "utils.built.attacks": "pgd",
        "utils.built.saliency": "integrated_gradients",
        "utils.built.drift": "ks",
    },
    "capstone": {
        "utils.built.plan": "size_up fit_machine wire file_bytes with_kills plan score "
        "machine_of card",
        "utils.built.release": "snapshot",
    },
    "serving": {
        "utils.built.paged": "users Pool paged_attention prefix_keys",
        "utils.built.engine": "decode_step continuous share_out preempt",
        "utils.built.speculative": "accept speculate",
    },
    "attention": {
        "utils.built.attention": "attention causal_mask window_mask split_heads "
        "repeat_heads rotate",
        "utils.built.gpt": "Block generate",
        "utils.built.muon": "orthogonal",
        "utils.built.bpe": "train_bpe bits_per_byte",
    },
    "scaling": {
        "utils.built.scaling": "corrupt training_flops fit_line fit_offset isoflop "
        "optimum misfit mup_rates finetune",
    },
    "optimizers": {
        "utils.built.optim": "momentum adagrad rmsprop adam adamw warmup_cosine he_init "
        "soft_threshold EarlyStopping shift_digits",
    },
}
PAIRS = [
    (slug, module, name)
    for slug, modules in EARNED.items()
    for module, names in modules.items()
    for name in names.split()
]


@pytest.mark.parametrize(("slug", "module", "name"), PAIRS)
def test_module_passes_the_chapters_check(slug, module, name):
    exercise = import_module(f"utils.checks.{slug}").chapter.exercises[name]
    verdict, report = exercise.judge(getattr(import_module(module), name))
    assert verdict == "right", report
