"""Predict the progression of diabetes after one year from ten measurements of 442 patients.

The data are those of Efron, Hastie, Johnstone and Tibshirani, "Least Angle
Regression", Annals of Statistics (2004), as scikit-learn carries them.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import mlflow
import mlflow.sklearn
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser()
parser.add_argument("--alpha", type=float, default=0.5)
parser.add_argument("--l1-ratio", type=float, default=0.1)
arguments = parser.parse_args()

features, target = load_diabetes(return_X_y=True, as_frame=True)
train_x, test_x, train_y, test_y = train_test_split(
    features, target, test_size=0.25, random_state=0
)

with mlflow.start_run():
    model = make_pipeline(
        StandardScaler(), ElasticNet(alpha=arguments.alpha, l1_ratio=arguments.l1_ratio)
    )
    model.fit(train_x, train_y)
    predicted = model.predict(test_x)
    metrics = {
        "rmse": root_mean_squared_error(test_y, predicted),
        "mae": mean_absolute_error(test_y, predicted),
        "r2": r2_score(test_y, predicted),
    }
    mlflow.log_metrics(metrics)
    print(
        f"alpha={arguments.alpha} l1_ratio={arguments.l1_ratio}:",
        ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()),
    )

    figure, axes = plt.subplots()
    axes.scatter(test_y, predicted, s=12)
    axes.axline((150, 150), slope=1, color="grey")
    axes.set_xlabel("measured progression")
    axes.set_ylabel("predicted")
    mlflow.log_figure(figure, "predicted.png")

    mlflow.sklearn.log_model(model, name="model", input_example=test_x.head(2))
